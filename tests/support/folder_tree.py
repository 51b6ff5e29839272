"""Writes small pictures for trees in an official layout."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, size: tuple[int, int] = (16, 12)) -> Path:
    """A picture that depends on the path's name alone; the format follows the extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4], "big")
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_clip(path: Path, frames: int = 6) -> Path:
    """A clip of plain frames, each darker than the one before."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(frames):
            pixels = np.full((32, 32, 3), 250 - 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path
