import io

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.evaluation.control import bytes_per_pixel, bytes_per_pixel_control
from deepfake_detectors.evaluation.predictions import Prediction


def encoded(seed, size=(40, 30), **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_size_over_pixels(tmp_path):
    content = encoded(0)
    (tmp_path / "a.jpg").write_bytes(content)
    expected = len(content) / 1200
    for image in (
        str(tmp_path / "a.jpg"),
        {"bytes": content, "path": None},
        {"bytes": None, "path": tmp_path / "a.jpg"},
    ):
        assert bytes_per_pixel(image) == expected
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    assert bytes_per_pixel(str(tmp_path / "b.jpg")) is None and bytes_per_pixel(str(tmp_path / "none.jpg")) is None


@pytest.mark.parametrize(("fake_quality", "low", "high"), [(40, 0.0, 0.0), (75, 0.2, 0.8)])
def test_quality_that_follows_the_class_is_seen(fake_quality, low, high):
    rows = [Prediction(str(n), "fake" if n % 2 else "real") for n in range(40)]
    images = [{"bytes": encoded(n, quality=fake_quality if n % 2 else 75), "path": None} for n in range(40)]
    found = bytes_per_pixel_control(rows, images, resamples=50, seed=0)["metrics"]["bytes_per_pixel_auc"]
    assert low <= found["value"] <= high and found["low"] <= found["value"] <= found["high"]


def test_one_class_and_no_picture_have_reasons():
    rows = [Prediction("a", "fake"), Prediction("b", "real")]
    images = [{"bytes": encoded(0), "path": None}, {"bytes": b"", "path": None}]
    assert "no real image" in bytes_per_pixel_control(rows, images, 0, 0)["undefined"]["bytes_per_pixel_auc"]
    assert "sizes" in bytes_per_pixel_control(rows, images[1:] * 2, 0, 0)["undefined"]["bytes_per_pixel_auc"]
