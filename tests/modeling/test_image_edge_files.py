"""Files at the edge of their formats look as their 8-bit twins do, or are refused; none takes much memory or waits."""

import os
import struct
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from deepfake_detectors.modeling.image_loading import FORMATS, InputImageError, load_image, read_image_facts

WHITE_IS_ZERO, NEW_SUBFILE_TYPE, MAX_SAMPLE_VALUE = 0, 254, 281
CASES = Path(__file__).parents[2].parent / "shared" / "cases" / "img"


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def noise(height: int = 40, width: int = 60) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def grey_tiff(values: np.ndarray, photometric: int = 1, **tags: int) -> bytes:
    """A raw TIFF, written by hand: Pillow writes none of the odd ones."""
    height, width = values.shape
    entries = {256: width, 257: height, 258: values.itemsize * 8, 259: 1, 262: photometric, 273: 0, 277: 1}
    entries |= {278: height, 279: values.nbytes} | {int(key.removeprefix("tag")): value for key, value in tags.items()}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries)) + table + bytes(4) + data


GREY = np.arange(256, dtype=np.uint16).reshape(16, 16)


def test_white_is_zero_is_inverted_in_16_bits_as_in_8() -> None:
    narrow = np.asarray(load_image(grey_tiff(GREY.astype(np.uint8), WHITE_IS_ZERO)))
    wide = np.asarray(load_image(grey_tiff(GREY * 257, WHITE_IS_ZERO)))
    np.testing.assert_array_equal(narrow, wide)
    assert narrow[0, 0, 0] == 255


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_16_are_scaled_by_what_the_file_says_and_refused_where_it_says_nothing(bits: int) -> None:
    values = GREY.astype(np.uint32) * ((1 << bits) - 1) // 255
    scaled = np.asarray(load_image(grey_tiff(values.astype(np.uint16), tag281=(1 << bits) - 1)))
    assert np.abs(scaled[..., 0].astype(int) - GREY).max() <= 1
    with pytest.raises(InputImageError, match=str((1 << bits) - 1)):
        load_image(grey_tiff(values.astype(np.uint16)))


def test_dark_8_bit_pictures_widened_to_16_are_read() -> None:
    dark = np.array([[0, 1, 2, 15]], np.uint16)
    np.testing.assert_array_equal(np.asarray(load_image(grey_tiff(dark * 257)))[..., 0], dark)
    assert not np.asarray(load_image(grey_tiff(np.zeros((4, 4), np.uint16)))).any()


def png16(samples: np.ndarray, key: tuple[int, ...]) -> bytes:
    """A 16-bit PNG with a colour key; samples `(H, W, C)`."""
    import zlib

    height, width, channels = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    kind = {1: 0, 3: 2}[channels]
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"tRNS", struct.pack(f">{channels}H", *key)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def test_colour_keys_of_16_bit_pictures_are_transparent() -> None:
    colour = np.full((2, 2, 3), 50000)
    colour[0, 0] = (4096, 8192, 12288)
    found = load_image(png16(colour, (4096, 8192, 12288)))
    assert found.getpixel((0, 0)) == (255, 255, 255) and found.getpixel((1, 1)) == (195, 195, 195)
    grey = np.full((2, 2, 1), 50000)
    grey[0, 0] = 4096
    found = load_image(png16(grey, (4096,)))
    assert found.getpixel((0, 0)) == (255, 255, 255) and found.getpixel((1, 1)) == (195, 195, 195)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_pictures_are_turned_as_8_bit_ones(orientation: int, format: str) -> None:
    grey = np.arange(96, dtype=np.uint16).reshape(8, 12) * 2
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    narrow = load_image(encode(Image.fromarray(grey.astype(np.uint8)), format, exif=exif))
    wide = load_image(encode(Image.fromarray(grey * 257), format, exif=exif))
    np.testing.assert_array_equal(np.asarray(narrow), np.asarray(wide))


def pages(*kinds: tuple[int, int]) -> bytes:
    """A TIFF with a page of each (side, subfile type), as grey as it is long."""
    made = []
    for side, kind in kinds:
        image = Image.new("L", (side, side), side)
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[NEW_SUBFILE_TYPE] = kind
        image.encoderinfo = {"tiffinfo": info}
        made.append(image)
    stream = BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(stream) as writer:
        for image in made:
            image.save(writer, "TIFF", tiffinfo=image.encoderinfo["tiffinfo"])
            writer.newFrame()
    return stream.getvalue()


def test_the_full_size_page_of_a_tiff_is_judged_not_its_thumbnail() -> None:
    assert load_image(pages((16, 1), (120, 0))).size == (120, 120)
    assert load_image(pages((120, 0), (16, 1))).size == (120, 120)
    with pytest.raises(InputImageError, match="thumbnail"):
        load_image(pages((16, 1)))


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
def test_only_the_end_marker_of_a_jpeg_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, tolerant: bool, progressive: bool
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    for options in ({}, {"restart_marker_blocks": 2}):
        content = encode(Image.fromarray(noise()), "JPEG", progressive=progressive, **options)
        np.testing.assert_array_equal(np.asarray(load_image(content[:-2])), np.asarray(load_image(content)))
        whole = np.asarray(load_image(content))
        for cut in (*range(3, 30), len(content) // 3):
            try:  # bits that fill the last byte may go
                np.testing.assert_array_equal(np.asarray(load_image(content[:-cut])), whole)
            except InputImageError:
                continue
        with pytest.raises(InputImageError):
            load_image(content[: len(content) // 2])


def test_what_other_threads_do_to_pillow_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = encode(Image.fromarray(noise(64, 64)), "JPEG", quality=95)
    half, judged = content[: len(content) // 2], []

    def work() -> None:
        for _ in range(50):
            try:
                load_image(half)
                judged.append(1)
            except InputImageError:
                ImageFile.LOAD_TRUNCATED_IMAGES = True  # as another library may

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not judged


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "GIF"])
def test_the_budget_counts_pixels_and_memory(format: str) -> None:
    content = encode(Image.new("RGB", (100, 100)), format, **({"lossless": True} if format == "WEBP" else {}))
    assert load_image(content).size == (100, 100)
    with pytest.raises(InputImageError, match="max_pixels"):
        load_image(content, max_pixels=9_999)
    if format == "WEBP":  # its decoder holds whole canvases
        with pytest.raises(InputImageError, match="max_pixels"):
            load_image(content, max_pixels=10_000)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_bombs_are_refused_before_they_are_decoded(mode: str) -> None:
    content = encode(Image.new(mode, (12_000, 12_000)), "PNG")  # below Pillow's own limit of 178 megapixels
    assert len(content) < 200_000
    with pytest.raises(InputImageError, match="max_pixels"):
        load_image(content)


@pytest.mark.parametrize("program", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"])
def test_no_format_that_starts_a_program(tmp_path: Path, program: bytes) -> None:
    assert not {"EPS", "PSD", "PDF", "WMF", "FITS", "MPEG", "GRIB", "BUFR", "HDF5"} & set(FORMATS)
    path = tmp_path / "e.jpg"
    path.write_bytes(program)
    with pytest.raises(InputImageError, match="PostScript"):
        load_image(path)
    with pytest.raises(InputImageError, match="PostScript"):
        read_image_facts(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(InputImageError, match="not a regular file"):
            load_image(path)
        with pytest.raises(InputImageError, match="not a regular file"):
            read_image_facts(path)


def test_videos_and_heic_get_a_better_word() -> None:
    with pytest.raises(InputImageError, match="`examine`"):
        load_image(b"\0\0\0\x20ftypisom" + bytes(40))
    with pytest.raises(InputImageError, match="`examine`"):
        load_image(b"\x1a\x45\xdf\xa3" + bytes(40))
    with pytest.raises(InputImageError, match="pillow-heif"):
        load_image(b"\0\0\0\x18ftypheic" + bytes(40))


def test_an_open_file_is_one_picture_and_is_left_where_it_stood() -> None:
    stream = BytesIO(encode(Image.fromarray(noise()), "PNG"))
    stream.seek(7)
    np.testing.assert_array_equal(np.asarray(load_image(stream)), noise())
    assert stream.tell() == 7
    with Path(__file__).open(encoding="utf-8") as wrong:
        with pytest.raises(InputImageError, match="'rb'"):
            load_image(wrong)
    with pytest.raises(InputImageError, match="closed"):
        load_image(wrong)


def test_odd_tensors_and_dicts_get_the_typed_error() -> None:
    itself: dict[str, object] = {}
    itself["image"] = itself
    odd: list[object] = [
        itself,
        {"path": itself},
        torch.zeros(3, 8, 8).to_sparse(),
        torch.zeros(3, 8, 8, device="meta"),
    ]
    odd += [
        torch.quantize_per_tensor(torch.zeros(3, 8, 8), 0.1, 0, torch.quint8),
        torch.zeros(3, 8, 8).conj().to("meta"),
    ]
    odd += [
        torch.nested.nested_tensor([torch.zeros(3, 8), torch.zeros(3, 7)]),
        torch.zeros(3, 8, 8, dtype=torch.complex64),
    ]
    for source in odd:
        with pytest.raises(InputImageError):
            load_image(source)


@pytest.mark.parametrize(
    ("name", "twin"),
    [("gray16_whiteiszero.tif", "gray8_whiteiszero.tif"), ("rgb16_trns.png", "rgb8_trns.png")],
)
def test_the_recorded_cases(name: str, twin: str) -> None:
    if not CASES.is_dir():
        pytest.skip("the recorded cases are not beside this tree")
    first, second = (np.asarray(load_image(CASES / file)).astype(int) for file in (name, twin))
    assert np.abs(first - second).max() <= 1
