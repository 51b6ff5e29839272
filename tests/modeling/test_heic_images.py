"""HEIC pictures, as phones write them, through the optional pillow-heif."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

import deepfake_detectors  # noqa: F401 - registers the task
from deepfake_detectors.examination.video import is_video
from deepfake_detectors.modeling.image_loading import InputImageError, load_image, read_image_facts
from support.tiny_models import tiny_m2f2_det

pillow_heif = pytest.importorskip("pillow_heif", reason="reading HEIC needs the extra [heic]")


@pytest.fixture
def picture() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((120, 80), Image.Resampling.BICUBIC)


def heic(picture: Image.Image, **options: object) -> bytes:
    """A HEIC file without loss: all of the colour, and RGB as it is."""
    stream = BytesIO()
    pillow_heif.from_pillow(picture).save(stream, quality=-1, chroma=444, matrix_coefficients=0, **options)
    return stream.getvalue()


def test_a_heic_picture_is_judged_as_its_png(picture: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(heic(picture))
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.heic")), np.asarray(picture))
    assert read_image_facts(tmp_path / "a.heic")["format"] == "HEIF"
    assert not is_video(tmp_path / "a.heic")
    detect = pipeline("deepfake-detection", model=str(tiny_m2f2_det(tmp_path / "model")))
    photograph, twin = detect([str(tmp_path / "a.heic"), str(tmp_path / "a.png")])
    assert photograph["fake_probability"] == twin["fake_probability"]


def test_a_turned_heic_picture_stands_upright(picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[274] = 6
    stream = BytesIO()
    picture.save(stream, "PNG", exif=exif)
    upright = np.asarray(load_image(stream.getvalue()))
    assert upright.shape == (120, 80, 3)
    np.testing.assert_array_equal(np.asarray(load_image(heic(picture, exif=exif.tobytes()))), upright)


def test_damaged_and_large_heic_pictures_are_refused(picture: Image.Image) -> None:
    content = heic(picture)
    for broken in (content[: len(content) // 2], content[:40]):
        with pytest.raises(InputImageError):
            load_image(broken)
    with pytest.raises(InputImageError, match="max_pixels"):
        load_image(content, max_pixels=1000)
