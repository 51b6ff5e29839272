"""Pictures to lint: smooth, all different, and saved as the test says."""

import io

import numpy as np
from PIL import Image

from deepfake_detectors.data.lint import Source, lint_dataset
from deepfake_detectors.data.lint.measures import Picture

SIDE = 48


def content(seed: int, side: tuple[int, int] = (SIDE, SIDE), form: str = "JPEG", **options) -> bytes:
    """The file of a random smooth picture; the same seed and size give the same pixels before saving."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(side, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, form, **({"quality": 90} if form == "JPEG" else {}) | options)
    return file.getvalue()


def picture(number: int, label: str, split: str = "train", name: str = "a.jpg", data: bytes | None = None, **columns):
    """A `Picture` with columns as a builder gives them."""
    name_of = f"{split}/{label}/{number}"
    columns = {"manipulation": "real" if label == "real" else "gan", "group_id": name_of} | columns
    return Picture(name_of, split, label, content(number) if data is None else data, name, columns)


def plain_set(count: int = 20, start: int = 0, split: str = "train", **columns) -> list[Picture]:
    """Real and fake pictures that differ in nothing but their content."""
    return [
        picture(start + 2 * number + (label == "fake"), label, split, **columns)
        for number in range(count)
        for label in ("real", "fake")
    ]


def lint_list(pictures: list[Picture], **options):
    return lint_dataset(Source("test", len(pictures), iter(pictures)), **options)
