"""Pictures are decoded in one place, and in its twin for loading scripts, which keeps the same limits."""

import inspect
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.dataset_scripts import _files
from deepfake_detectors.dataset_scripts._files import open_image
from deepfake_detectors.modeling import image_jpeg, image_loading
from deepfake_detectors.modeling.image_loading import load_image, load_mask

ROOT = Path(__file__).parents[2]
LOADERS = {ROOT / "modeling" / "image_loading.py", ROOT / "dataset_scripts" / "_files.py"}


def test_pictures_are_decoded_in_two_files_only() -> None:
    sources = [
        path for folder in ("modeling", "dataset_scripts", "src", "train") for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(sources) > 100
    decoding = re.compile(r"Image\.open\(|\.convert\(\s*[\"']RGB[\"']\s*\)")
    assert {path for path in sources if decoding.search(path.read_text(encoding="utf-8"))} <= LOADERS


@pytest.mark.parametrize("name", ["FORMATS", "MAX_PIXELS", "BYTES_PER_PIXEL", "MODE_BYTES", "CANVAS_BYTES"])
def test_the_twin_has_the_same_limits(name: str) -> None:
    assert getattr(_files, name) == getattr(image_loading, name)
    assert set(image_loading.DECODING_ERRORS) <= set(_files.DECODING_ERRORS)
    for function in ("complete_jpeg", "_has_every_scan"):
        assert inspect.getsource(getattr(_files, function)) == inspect.getsource(getattr(image_jpeg, function))
    assert _files.FILLINGS == image_jpeg.FILLINGS


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def noise(mode: str) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (20, 30, len(Image.new(mode, (1, 1)).getbands())), np.uint8)
    return Image.fromarray(values.squeeze(), mode) if mode == "L" else Image.fromarray(values)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_twin_gives_the_same_pixels(mode: str) -> None:
    content = encode(noise(mode), "PNG")
    np.testing.assert_array_equal(np.asarray(open_image(content, "x", "RGB")), np.asarray(load_image(content)))
    np.testing.assert_array_equal(np.asarray(open_image(content, "x", "L")), np.asarray(load_mask(content)))


def test_the_twin_scales_16_bits_and_completes_what_lacks_only_its_end() -> None:
    wide = encode(Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257), "PNG")
    for mode in ("RGB", "L"):
        assert np.asarray(open_image(wide, "x", mode)).max() == 255
        np.testing.assert_array_equal(np.asarray(open_image(wide, "x", mode)).reshape(256, -1)[:, 0], np.arange(256))
    jpeg = encode(noise("RGB"), "JPEG")
    np.testing.assert_array_equal(np.asarray(open_image(jpeg[:-2], "x")), np.asarray(load_image(jpeg)))


def test_the_twin_refuses_what_the_loader_refuses(tmp_path: Path) -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    jpeg = encode(noise("RGB"), "JPEG")
    for content in (program, jpeg[: len(jpeg) // 2], encode(Image.new("1", (12_000, 12_000)), "PNG"), b""):
        with pytest.raises(ValueError, match=r"^x \("):
            open_image(content, "x")
    with pytest.raises(ValueError, match="max_pixels"):
        open_image(jpeg, "x", max_pixels=100)
    with pytest.raises(ValueError, match="regular file"):
        open_image(Path("/dev/zero"))
