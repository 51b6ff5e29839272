"""Videos made by tests, whose frames say what number they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["frame_number", "numbered", "write_clip", "write_sound"]

STEP = 4  # grey levels from one number to the next, more than a codec loses


def numbered(number: int, size: tuple[int, int] = (160, 96)) -> Image.Image:
    """A frame of one grey level, by which `frame_number` knows it; numbers repeat after 60."""
    return Image.new("RGB", size, (8 + STEP * (number % 60),) * 3)


def frame_number(image: Image.Image) -> int:
    return round((float(np.asarray(image).mean()) - 8) / STEP)


def write_clip(
    path: Path,
    frames: int | Sequence[Image.Image] = 50,
    size: tuple[int, int] = (160, 96),
    rate: int = 25,
    codec: str = "libx264",
    key_every: int = 12,
    rotation: int = 0,
    ticks: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    picture: Callable[[int, tuple[int, int]], Image.Image] = numbered,
) -> Path:
    """Write a video.

    Args:
        path: its suffix names the container.
        frames: pictures, or how many numbered ones.
        rate: frames per second.
        codec: of FFmpeg.
        key_every: frames from one key frame to the next.
        rotation: degrees by which a player has to turn it, counter-clockwise.
        ticks: when each frame is shown, in milliseconds, instead of `rate`.
        options: of the container.
    """
    import av

    images = [picture(number, size) for number in range(frames)] if isinstance(frames, int) else frames
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = images[0].size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = key_every
        if rotation:
            stream.set_display_rotation(rotation)
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_image(image)
            if ticks is not None:
                frame.pts, frame.time_base = ticks[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write a container that holds a second of silence alone."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        for _ in range(43):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            frame.sample_rate = 44100
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
