"""`check_image` accepts exactly what `open_image` decodes, and says the same of the rest."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.dataset_scripts._files import check_image, open_image

JPEG_KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
    "4:4:4": {"subsampling": 0},
    "restarts": {"restart_marker_blocks": 3},
}


def jpeg(size: tuple[int, int], mode: str = "RGB", **options) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 6, len(Image.new(mode, (1, 1)).getbands())), dtype=np.uint8)
    bands = [Image.fromarray(pixels[..., index]) for index in range(pixels.shape[-1])]
    image = (bands[0] if mode == "L" else Image.merge(mode, bands)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85, **options)
    return file.getvalue()


def outcome(read, content: bytes):
    try:
        return read(content, "x").format
    except ValueError as error:
        return str(error)


def damaged(whole: bytes, seed: int) -> list[bytes]:
    """Cut near its end and anywhere, with bytes changed, and with bytes put in between."""
    source = random.Random(seed)
    found = [whole[:-count] for count in range(1, 25)]
    found += [whole[: source.randrange(1, len(whole))] for _ in range(15)]
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(source.choice((1, 1, 2, 5))):
            content[source.randrange(len(content))] = source.randrange(256)
        found.append(bytes(content))
    for _ in range(10):
        place = source.randrange(len(whole))
        found.append(whole[:place] + source.randbytes(3) + whole[place:])
    return found


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_damaged_jpegs_are_judged_alike(kind):
    outcomes = set()
    for size in ((70, 53), (8, 8), (1, 1)):
        whole = jpeg(size, **JPEG_KINDS[kind])
        for content in [whole, *damaged(whole, size[0])]:
            decoded = outcome(open_image, content)
            assert outcome(check_image, content) == decoded
            outcomes.add(decoded == "JPEG")
    assert outcomes == {True, False}


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "BMP"])
def test_other_formats(form):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(file, form)
    whole = file.getvalue()
    checked = check_image(whole)
    assert (checked.content, checked.format, checked.size) == (whole, form, (7, 9))
    assert outcome(check_image, whole[: len(whole) // 2]) == outcome(open_image, whole[: len(whole) // 2]) != form


def test_size_is_upright_and_the_budget_holds(tmp_path):
    lying = Image.Exif()
    lying[0x0112] = 6
    path = tmp_path / "lying.jpg"
    Image.new("RGB", (640, 48)).save(path, exif=lying)
    assert check_image(path).size == check_image(str(path)).size == (48, 640)
    with pytest.raises(ValueError, match="640x48"):
        check_image(path, max_pixels=1000)
    with pytest.raises(ValueError, match="not a regular file"):
        check_image(tmp_path)
