"""Pictures and clips with faces in known places, as a person might hold them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from support.real_data import real_data

SCENE_SIZE = (1280, 720)
# Left, top and side of the faces in a scene.
PLACES = ((80, 200, 300), (500, 160, 300), (920, 220, 280))
FPS = 25


def ddvqa_crops(label: str, count: int) -> list[Path]:
    """Return face crops of DD-VQA: of the real videos (`"real"`), or of the type Deepfakes (`"fake"`)."""
    files = sorted((real_data("ddvqa") / "images_c40" / "test").glob("*.jpg"))
    real = [file for file in files if len(file.stem.split("_")) == 2]
    fake = [file for file in files if file.stem.startswith("0_") and len(file.stem.split("_")) == 3]
    return (real if label == "real" else fake)[:count]


def background(size: tuple[int, int] = SCENE_SIZE) -> Image.Image:
    """Return a photograph without a face."""
    photo = sorted((real_data("scenes_text2image") / "real").rglob("*.jpg"))[0]
    with Image.open(photo) as image:
        return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def scene(crops: Sequence[Path], shift: int = 0) -> Image.Image:
    """Return a photograph with faces pasted into `PLACES`, all moved to the right by `shift` pixels."""
    picture = background()
    for crop, (left, top, side) in zip(crops, PLACES, strict=False):
        with Image.open(crop) as face:
            picture.paste(face.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), (left + shift, top))
    return picture


def write_clip(path: Path, frames: Sequence[Image.Image], fps: int = FPS) -> Path:
    """Write a video, H.264 in MP4."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "20"}
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    return path


def face_clip(path: Path, crops: Sequence[Path], seconds: float = 20.0, fps: int = FPS) -> Path:
    """Write a clip in which faces, pasted from crops, move slowly to the right."""
    count = round(seconds * fps)
    still = [scene(crops, shift) for shift in range(0, 40, 4)]
    return write_clip(path, [still[number * len(still) // count] for number in range(count)], fps)


def drawing(size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Return a page with a few lines."""
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    for number in range(12):
        pen.line((40, 40 + 30 * number, 500, 40 + 30 * number), fill="black", width=2)
    return page


def noise_clip(path: Path, frames: int = 12) -> Path:
    """Write a clip of noise, without a face."""
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)) for _ in range(frames)]
    return write_clip(path, [image.resize((320, 240), Image.Resampling.BICUBIC) for image in small])
