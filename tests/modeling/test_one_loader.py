"""Pictures are decoded in one place, and in its twin for loading scripts, which keeps the same limits."""

import inspect
import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from deepfake_detectors.dataset_scripts import _files
from deepfake_detectors.dataset_scripts._files import open_image, require_same_size
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


@pytest.mark.parametrize(
    "name",
    [
        *("FORMATS", "MAX_PIXELS", "BYTES_PER_PIXEL", "MODE_BYTES", "CANVAS_BYTES", "MAX_PAGES", "WIDENED", "BAND"),
        *("NEW_SUBFILE_TYPE", "OLD_SUBFILE_TYPE", "MAX_SAMPLE_VALUE", "NOT_FULL_SIZE", "DARK_16_BIT", "DARK_8_BIT"),
    ],
)
def test_the_twin_has_the_same_limits(name: str) -> None:
    assert getattr(_files, name) == getattr(image_loading, name)


def test_the_twin_has_the_same_functions() -> None:
    assert set(image_loading.DECODING_ERRORS) <= set(_files.DECODING_ERRORS)
    for function in ("complete_jpeg", "_has_every_scan"):
        assert inspect.getsource(getattr(_files, function)) == inspect.getsource(getattr(image_jpeg, function))
    for function in ("_is_full_size", "_note_samples", "_stated_peak", "_bands", "_on_white"):
        assert inspect.getsource(getattr(_files, function)) == inspect.getsource(getattr(image_loading, function))
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


def grey16(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint16))


def tiff(image: Image.Image, **tags: int) -> bytes:
    names = {"photometric": 262, "peak": 281, "subfile": 254, "orientation": 274}
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        directory[names[name]] = value
    return encode(image, "TIFF", tiffinfo=directory)


def thumbnail_first() -> bytes:
    stream = BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(stream, new=True) as pages:
        for image, kind in ((noise("RGB").resize((6, 4)), 1), (noise("RGB"), 0)):
            directory = TiffImagePlugin.ImageFileDirectory_v2()
            directory[254] = kind
            image.save(pages, "TIFF", tiffinfo=directory)
            pages.newFrame()
    return stream.getvalue()


def rotated(image: Image.Image, format: str) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encode(image, format, exif=exif)


def png16(key: tuple[int, int, int] | None = None, top: int = 65536) -> bytes:
    """A colour picture of 16 bits, which Pillow does not write."""
    values = np.random.default_rng(0).integers(0, top, (20, 30, 3)).astype(">u2")
    if key is not None:
        values[:5] = key
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0))]
    chunks += [] if key is None else [(b"tRNS", struct.pack(">3H", *key))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


DEEP = np.arange(600).reshape(20, 30)
ODD = {
    "thumbnail first": thumbnail_first(),
    "only a thumbnail": tiff(noise("RGB"), subfile=1),
    "white is zero": tiff(noise("L"), photometric=0),
    "16 bits, white is zero": tiff(grey16(DEEP * 100), photometric=0),
    "16 bits, white stated": tiff(grey16(DEEP * 6), peak=4095),
    "16 bits": encode(grey16(DEEP * 109), "PNG"),
    "12 bits in 16": encode(grey16(DEEP * 6), "PNG"),
    "dark 8 bits in 16": encode(grey16(DEEP % 40 * 257), "PNG"),
    "16 bits, a transparent grey": encode(grey16(DEEP * 109), "PNG", transparency=1090),
    "32-bit integers": encode(Image.fromarray((DEEP * 1000).astype(np.int32)), "TIFF"),
    "floats": encode(Image.fromarray(DEEP.astype(np.float32)), "TIFF"),
    "colours of 16 bits": png16(),
    "colours of 16 bits, one transparent": png16((1000, 2000, 3000)),
    "colours of 12 bits in 16": png16(top=4096),
    "a transparent colour": encode(noise("RGB"), "PNG", transparency=tuple(noise("RGB").getpixel((3, 3)))),
    "4 bits, a transparent grey": encode(noise("L").quantize(16), "PNG", bits=4, transparency=3),
    "lying JPEG": rotated(noise("RGB"), "JPEG"),
    "lying PNG of 16 bits": rotated(grey16(DEEP * 109), "PNG"),
    "lying TIFF": tiff(noise("RGB"), orientation=6),
}
# Of these the twin asks for a simpler file; the loader converts them.
SIMPLER = {"16 bits, white is zero", "16 bits, white stated", "16 bits, a transparent grey"}


def pixels(function: Callable[[], Image.Image]) -> np.ndarray | None:
    """The pixels, or `None` for a refusal."""
    try:
        return np.asarray(function())
    except ValueError:
        return None


@pytest.mark.parametrize("name", ODD)
def test_the_twin_gives_the_pixels_of_the_loader_or_none(name: str) -> None:
    content = ODD[name]
    refused = 0
    for mode, load in (("RGB", load_image), ("L", load_mask)):
        expected, found = pixels(lambda: load(content)), pixels(lambda: open_image(content, "x", mode))  # noqa: B023
        refused += found is None and expected is not None
        if found is not None:
            np.testing.assert_array_equal(found, expected)
    assert bool(refused) == (name in SIMPLER)
    assert (pixels(lambda: open_image(content, "x")) is None) == (name == "only a thumbnail")


def test_the_twin_has_no_limit_of_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_image(encode(noise("RGB"), "PNG"), "x").size == (30, 20)


def test_a_mask_is_compared_with_its_picture_upright() -> None:
    picture, mask = open_image(rotated(noise("RGB"), "JPEG"), "x"), Image.new("L", (20, 30))
    require_same_size(mask, picture, "x")
    with pytest.raises(ValueError, match="mask"):
        require_same_size(mask.transpose(Image.Transpose.ROTATE_90), picture, "x")


def test_the_twin_refuses_what_the_loader_refuses(tmp_path: Path) -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    jpeg = encode(noise("RGB"), "JPEG")
    for content in (program, jpeg[: len(jpeg) // 2], encode(Image.new("1", (12_000, 12_000)), "PNG"), b""):
        with pytest.raises(ValueError, match=r"^x \("):
            open_image(content, "x")
    with pytest.raises(ValueError, match="max_pixels") as caught:
        open_image(jpeg, "x", max_pixels=100)
    assert "Download" not in str(caught.value)  # another copy would be as large
    with pytest.raises(ValueError, match="regular file"):
        open_image(Path("/dev/zero"))
