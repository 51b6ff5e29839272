"""Load an image from any supported source as upright RGB, or explain in one sentence why that is impossible."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin

from .image_downloading import URL_MAX_BYTES, URL_TIMEOUT, download
from .image_jpeg import complete_jpeg
from .image_sources import (
    ACCEPTED_SOURCES,
    InputImageError,
    array_to_image,
    describe_image_source,
    innermost,
    open_regular_file,
    read_file_object,
    tensor_to_image,
)

__all__ = [
    "DECODING",
    "FORMATS",
    "MAX_PIXELS",
    "InputImageError",
    "animation_frames",
    "animation_times",
    "describe_image_source",
    "draft_side",
    "load_draft",
    "load_image",
    "load_mask",
    "load_stored_image",
    "read_image_facts",
    "read_image_size",
    "rgb_image",
    "upright_rgb",
]

# Formats that are decoded, by Pillow's names. Never EPS, which starts a program, nor formats without a fixed size or
# with an untested decoder. HEIF needs pillow-heif.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")
HEIF = "HEIF"
SELF_MADE = frozenset({None, "", *FORMATS, HEIF})

# Detectors resize by the shorter edge: a 10000x1 file of a few kilobytes would become an image of 12 gigabytes.
MAX_ASPECT_RATIO = 200

QUARTER_TURNS = range(5, 9)  # EXIF orientations that exchange width and height

MAX_PIXELS = 100_000_000
DECODING = ("full", "draft")
DRAFT_SIDES = 2  # short sides of what a model sees, that a draft keeps at least
# Decoding may take this many bytes for each pixel of the budget.
BYTES_PER_PIXEL = 10
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
# Their decoders keep whole canvases in addition to the image. Peak bytes per pixel for RGBA images of 4 and 9
# megapixels, measured with Pillow 12.3 and pillow-heif 1.8: WebP 18.0, JPEG 2000 24.6, AVIF 13.5 and HEIF 13.0 with 8
# bits, HEIF 20.3 with more, which is also used for AVIF.
CANVAS_BYTES = {"WEBP": 18, "AVIF": 21, "HEIF": 21, "JPEG2000": 25}
BAND = 1 << 20  # pixels converted at a time

# First bytes of unsupported formats that get a more helpful message.
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
VIDEO = (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"FLV\x01", b"\x30\x26\xb2\x75", b"OggS")
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})

# A TIFF page with one of these bits is a thumbnail or a mask of another page.
NEW_SUBFILE_TYPE, OLD_SUBFILE_TYPE, MAX_SAMPLE_VALUE = 254, 255, 281
NOT_FULL_SIZE = 0b101
MAX_PAGES = 64
# 16-bit images below this have 10, 12 or 14 bits: raw camera values, not a finished image.
DARK_16_BIT, DARK_8_BIT = 1 << 14, 1 << 4
WIDENED = 257  # 65535 = 255 * 257

# Errors that Pillow's decoders raise on damaged files, found by flipping bytes in twenty formats.
DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,
    IndexError,
    TypeError,
    KeyError,
    AttributeError,
    AssertionError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)

# Keys of `Image.info` that are not text written into the file by a person.
NOT_TEXT = frozenset(
    "exif icc_profile photoshop adobe jfif jfif_version jfif_unit jfif_density dpi transparency background version "
    "extension timestamp duration loop mp mpoffset".split()
)


def load_image(
    source: Any,
    *,
    timeout: float = URL_TIMEOUT,
    max_bytes: int = URL_MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    allow_private_hosts: bool = False,
) -> Image.Image:
    """Load one image as upright RGB with 8 bits per channel.

    The format is detected from the content, never from the file name. EXIF orientation is applied, 16-bit greyscale is
    scaled to 8 bits, transparent pixels are blended with white. For animations and multi-page files the first frame is
    used (for an open PIL image the current one, for a TIFF that starts with a thumbnail the full-size page).

    Args:
        source: a path (`str` or `Path`), an http(s) URL, `bytes`, a binary file object, a PIL image, a numpy array
            (uint8 `(H, W)`, `(H, W, 3)` or `(H, W, 4)`; float in [0, 1] of shape `(H, W, 3)`, converted with
            `int(value * 255)`), a torch tensor (the same with channels first), or a dict: `{"image": ...}`, or
            `{"bytes", "path"}` from an undecoded cell of `datasets`.
        timeout: limit for the whole download, in seconds.
        max_bytes: limit for the size of a download.
        max_pixels: largest width times height to decode; decoding uses at most ten bytes per pixel.
        allow_private_hosts: also download from loopback, link-local and private addresses.

    Returns:
        `PIL.Image.Image` of mode `RGB`.

    Raises:
        InputImageError: for anything wrong with the input. It is a `ValueError`.
    """
    return _loaded(source, timeout, max_bytes, max_pixels, allow_private_hosts, None)[0]


def load_draft(
    source: Any,
    side: int,
    *,
    timeout: float = URL_TIMEOUT,
    max_bytes: int = URL_MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    allow_private_hosts: bool = False,
) -> tuple[Image.Image, tuple[int, int]]:
    """Load one image as `load_image` does, but decode a large JPEG in a smaller size. This changes pixels.

    Where the short side is at least twice, four or eight times `side`, the decoder gives a half, a quarter or an
    eighth of the size, with its own averaging. Other formats, and images that are not files, are loaded in full.

    Args:
        source, timeout, max_bytes, max_pixels, allow_private_hosts: as in `load_image`.
        side: pixels that the short side keeps at least, where it has them.

    Returns:
        `PIL.Image.Image` of mode `RGB`, and width and height of the picture as `load_image` gives it.

    Raises:
        InputImageError: as `load_image`.
    """
    return _loaded(source, timeout, max_bytes, max_pixels, allow_private_hosts, side)


def draft_side(decoding: str, processor: Any, head: str | None = None) -> int | None:
    """Return the `side` of `load_draft` that fits a processor; `None` where pictures are loaded in full.

    Args:
        decoding: `"full"` or `"draft"`.
        processor: a detector's, or its image processor.
        head: of a checkpoint with named heads, the one that judges.

    Raises:
        ValueError: for another word, and for `"draft"` where the processor does not bring every picture to one size.
    """
    if decoding not in DECODING:
        raise ValueError(f"decoding is {decoding!r}, expected one of {', '.join(map(repr, DECODING))}.")
    if decoding == "full":
        return None
    image_processor = getattr(processor, "image_processor", None) or processor
    resized_side = getattr(image_processor, "resized_side", None)
    side = None if resized_side is None else resized_side(head)
    if side is None:
        raise ValueError(
            f"decoding is 'draft', but {type(image_processor).__name__} does not bring every picture to one size, so "
            "that a draft would show the model another part or scale; pass decoding='full'."
        )
    return DRAFT_SIDES * side


def _loaded(
    source: Any, timeout: float, max_bytes: int, max_pixels: int, allow_private_hosts: bool, draft_side: int | None
) -> tuple[Image.Image, tuple[int, int]]:
    """The picture as RGB, decoded as a draft where a side is given, and its full size."""
    name = describe_image_source(source)
    source = innermost(source, name)
    if isinstance(source, (torch.Tensor, np.ndarray)):
        made = tensor_to_image(source, name) if isinstance(source, torch.Tensor) else array_to_image(source, name)
        found = _to_rgb(made, name, max_pixels)
        return found, found.size
    if isinstance(source, Image.Image):
        found = upright_rgb(source, max_pixels=max_pixels)
        return (found.copy() if found is source else found), found.size
    if isinstance(source, str) and "://" in source:
        if not source.lower().startswith(("http://", "https://")):
            raise InputImageError(f"{name}: only http:// and https:// URLs are supported; download it first.", name)
        source = download(source, name, timeout, max_bytes, allow_private_hosts)
    with _opened(source, name, max_pixels, draft_side) as image:
        width, height = getattr(image, "full_size", image.size)
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in QUARTER_TURNS
        return _to_rgb(image, name, max_pixels), (height, width) if turned else (width, height)


def upright_rgb(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a PIL image as `load_image` does, but the image itself where nothing in it has to change.

    Args:
        image: open or decoded.
        max_pixels: see `load_image`.

    Raises:
        InputImageError: as `load_image`.
    """
    name = describe_image_source(image)
    with _decoding(name):
        return _to_rgb(image, name, max_pixels)


def load_stored_image(source: Any, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one image file as stored, without rotation or conversion, with its `format`, `info` and tables.

    Args:
        source: a path, `bytes`, a binary file object, or an undecoded cell of `datasets`.
        max_pixels: see `load_image`.

    Raises:
        InputImageError: as for `load_image`.
    """
    name = describe_image_source(source)
    with _opened(innermost(source, name), name, max_pixels) as image:
        return image


def load_mask(source: Any, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Load a mask as upright mode `L`, dropping transparency: some authors mark black as transparent.

    Args:
        source: a PIL image, a path, `bytes`, or an undecoded cell of `datasets`.
        max_pixels: see `load_image`.

    Raises:
        InputImageError: as for `load_image`.
    """
    name = describe_image_source(source)
    found = innermost(source, name)
    with _decoding(name):
        image = found.copy() if isinstance(found, Image.Image) else load_stored_image(found, max_pixels=max_pixels)
        image.info.pop("transparency", None)
        if "A" in image.getbands() or "a" in image.getbands():
            image = image.convert("RGBA").convert("RGB")
        return _to_rgb(image, name, max_pixels).convert("L")


def read_image_size(source: Any) -> tuple[int, int]:
    """Return width and height of an image file as stored, from its header.

    Args:
        source: a path, `bytes`, or an undecoded cell of `datasets`.

    Raises:
        InputImageError: as for `load_image`.
    """
    name = describe_image_source(source)
    found = innermost(source, name)
    with BytesIO(found) if isinstance(found, bytes) else open_regular_file(found, name) as file, _decoding(name):
        size: tuple[int, int] = _identified(file, name).size
        return size


def rgb_image(image: Image.Image) -> Image.Image:
    """Return an image created by this program in mode `RGB`; the same object if it already is."""
    return image if image.mode == "RGB" else image.convert("RGB")


def read_image_facts(source: str | Path) -> dict[str, Any]:
    """Read the metadata of an image file without decoding its pixels.

    Args:
        source: a path.

    Returns:
        `format` (Pillow's name), `width` and `height` (as stored), `mode`, `frames`, `mime` (`None` if unknown),
        `exif` (name of a tag -> text) and `text` (name of a text chunk -> text). Texts are cut to 2000 characters.

    Raises:
        InputImageError: if it cannot be read. It is a `ValueError`.
    """
    name = describe_image_source(source)
    with open_regular_file(source, name) as file, _decoding(name), _identified(file, name) as image:
        exif = image.getexif()
        tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
        info = {str(key): value for key, value in image.info.items()}
        return {
            "format": image.format,
            "mime": Image.MIME.get(image.format or ""),
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "frames": getattr(image, "n_frames", 1),
            "exif": {
                ExifTags.TAGS[tag]: _short_text(value)
                for tag, value in tags.items()
                if tag in ExifTags.TAGS and isinstance(value, (str, int, float, bytes))
            },
            "text": {
                key: _short_text(value)
                for key, value in info.items()
                if key not in NOT_TEXT and isinstance(value, (str, bytes)) and len(value) > 0
            },
        }


def _short_text(value: Any) -> str:
    text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
    return "".join(character if character.isprintable() else " " for character in text[:2000]).strip()


@contextmanager
def _opened(source: Any, name: str, max_pixels: int, draft_side: int | None = None) -> Iterator[Image.Image]:
    """A file of any kind, decoded; on leaving, its handle is closed."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        file: BinaryIO = BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        file = open_regular_file(source, name)
    elif hasattr(source, "read"):
        file = BytesIO(read_file_object(source, name))
    else:
        raise InputImageError(f"{name} is not an image. Accepted: {ACCEPTED_SOURCES}.", name)
    with file, _decoding(name):
        if not file.read(1):
            raise InputImageError(f"{name} is empty (0 bytes).", name)
        yield _decode(file, name, max_pixels, draft_side)


class _StrictFile:
    """A file that raises an error at its end while pixels are read.

    Pillow fills a truncated JPEG with grey if `ImageFile.LOAD_TRUNCATED_IMAGES` is set, which another thread may do at
    any moment; an error when reading past the end prevents that.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.read, self.seek, self.tell, self.close = file.read, file.seek, file.tell, file.close

    def begin_pixels(self) -> None:
        """From here on, reading beyond the end is an error."""
        self.read = self._read_strictly

    def _read_strictly(self, size: int = -1) -> bytes:
        found = self.file.read(size)
        if size and not found:
            raise _TruncatedError("image file is truncated")
        return found


class _TruncatedError(OSError):
    """Raised if a file ends before its image does."""


def _decode(file: BinaryIO, name: str, max_pixels: int, draft_side: int | None = None) -> Image.Image:
    strict = _StrictFile(file)
    image = _identified(strict, name)
    if image.format == "TIFF":
        _seek_full_size(image, name)
    _check_budget(image, name, max_pixels)
    if image.format in ("JPEG", "MPO"):
        strict.begin_pixels()
    _shrink_draft(image, draft_side)
    try:
        _read_pixels(image)
    except _TruncatedError:
        file.seek(0)
        content = complete_jpeg(file.read(), lambda content: _pixels(content, name))
        if content is None:
            raise
        image = _identified(BytesIO(content), name)
        _shrink_draft(image, draft_side)
        _read_pixels(image)
    return image


def _shrink_draft(image: Any, side: int | None) -> None:
    """Let the decoder give a JPEG in a smaller size, whose short side is still at least `side`."""
    if side is not None and image.format in ("JPEG", "MPO"):
        image.full_size = image.size
        image.draft(None, (side, side))


def _pixels(content: bytes, name: str) -> bytes:
    image = _identified(BytesIO(content), name)
    image.load()
    return image.tobytes()


def _identified(file: Any, name: str) -> Any:
    """Open a file with the first format that accepts it, like `Image.open` but with our own limit.

    Pillow's limit, `Image.MAX_IMAGE_PIXELS`, applies to the whole process: changing it for one image would change it
    for other threads, so the plug-ins are called directly.
    """
    Image.init()
    file.seek(0)
    start = file.read(32)
    for form in (*FORMATS, HEIF):
        if form == HEIF and not (start[4:8] == b"ftyp" and _register_heif()):
            continue
        if form not in Image.OPEN:  # this Pillow was built without the library
            continue
        factory, accept = Image.OPEN[form]
        if accept is not None:
            accepted = accept(start[:16])
            if not accepted or isinstance(accepted, str):
                continue
        file.seek(0)
        try:
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    raise InputImageError(_why_unknown(start, name), name)


def _register_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return HEIF in Image.OPEN


def _why_unknown(start: bytes, name: str) -> str:
    if start.startswith(POSTSCRIPT):
        return f"{name} is a PostScript program, not an image; convert it to PNG first."
    brand = start[8:12]
    if start[4:8] == b"ftyp" and brand in HEIF_BRANDS | AVIF_BRANDS:
        package = "pillow-heif" if brand in HEIF_BRANDS else "a newer pillow"
        return f"{name} is a HEIC or AVIF image, which cannot be read here, or is damaged; install {package}."
    moving = start[4:8] in (b"ftyp", b"moov", b"mdat") or (start[:4] == b"RIFF" and brand == b"AVI ")
    if moving or start.startswith(VIDEO):
        return f"{name} is a video, not an image; use `examine` for videos."
    return f"{name} is not an image in a supported format (judged by content, not by file name): {', '.join(FORMATS)}."


def _seek_full_size(image: Any, name: str) -> None:
    """Seek to the full-size page of a TIFF whose first page is a thumbnail, as in DNG, NEF and scanner files."""
    if _is_full_size(image):
        return
    best, place, page = 0, None, 0
    while page < MAX_PAGES:
        if _is_full_size(image) and image.width * image.height > best:
            best, place = image.width * image.height, page
        page += 1
        try:
            image.seek(page)
        except EOFError:
            break
    if place is None:
        raise InputImageError(
            f"{name} starts with a thumbnail, and its full-size image is not in a supported page (as in camera raw "
            "files); convert it to JPEG or PNG first.",
            name,
        )
    image.seek(place)


def _is_full_size(image: Any) -> bool:
    kind, old = image.tag_v2.get(NEW_SUBFILE_TYPE, 0), image.tag_v2.get(OLD_SUBFILE_TYPE, 1)
    return not (int(kind) & NOT_FULL_SIZE) and int(old) != 2


def _check_budget(image: Image.Image, name: str, max_pixels: int) -> None:
    """Refuse images that would need too much memory, before decoding anything."""
    pixels = image.width * image.height
    if image.format == "TIFF":
        tags = image.tag_v2
        pixels = max(
            pixels, int(tags.get(TiffImagePlugin.TILEWIDTH, 0)) * int(tags.get(TiffImagePlugin.TILELENGTH, 0))
        )
    each = MODE_BYTES.get(image.mode, 4) + (0 if image.mode == "RGB" else 4)
    if image.info.get("progressive"):
        each += 2 * len(image.getbands())
    each = max(each, CANVAS_BYTES.get(image.format or "", 0))
    if pixels > max_pixels or pixels * each > max_pixels * BYTES_PER_PIXEL:
        raise InputImageError(
            f"{name}: refused as a possible decompression bomb: {image.width}x{image.height} pixels need about "
            f"{pixels * each / 1e6:.0f} MB, but the limit is {max_pixels / 1e6:g} megapixels and "
            f"{max_pixels * BYTES_PER_PIXEL / 1e6:.0f} MB. Raise `max_pixels` to read it.",
            name,
        )


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Add the name of the input to any error raised while decoding."""
    try:
        yield
    except InputImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputImageError(f"{name}: refused as a decompression bomb ({error})", name) from error
    except DECODING_ERRORS as error:
        raise InputImageError(
            f"{name} cannot be decoded; the file is damaged or incomplete ({type(error).__name__}: {error}).", name
        ) from error


_strict_lock = threading.Lock()
_strict_decodes = 0
_tolerated_before = False


@contextmanager
def _truncated_refused() -> Iterator[None]:
    """Undo `ImageFile.LOAD_TRUNCATED_IMAGES` if another library has set it: a half-grey image must not get a verdict.

    Counted over all threads: the first to decode resets it, the last one restores it.
    """
    global _strict_decodes, _tolerated_before
    with _strict_lock:
        if _strict_decodes == 0 or ImageFile.LOAD_TRUNCATED_IMAGES:
            _tolerated_before = ImageFile.LOAD_TRUNCATED_IMAGES or (_strict_decodes > 0 and _tolerated_before)
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _strict_decodes += 1
    try:
        yield
    finally:
        with _strict_lock:
            _strict_decodes -= 1
            if _strict_decodes == 0 and _tolerated_before:
                ImageFile.LOAD_TRUNCATED_IMAGES = True


def _read_pixels(image: Image.Image) -> None:
    _note_samples(image)
    with _truncated_refused():
        image.load()
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            raise _TruncatedError("another part of the program has just set LOAD_TRUNCATED_IMAGES; try again")


def _to_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    if image.format not in SELF_MADE and getattr(image, "tile", None):
        if image.format == "EPS":  # decoding it would run an untrusted program in Ghostscript
            raise InputImageError(f"{name} is a PostScript program, not an image; convert it to PNG first.", name)
        raise InputImageError(f"{name} has the format {image.format}; supported are {', '.join(FORMATS)}.", name)
    if image.width == 0 or image.height == 0:
        raise InputImageError(f"{name} has no pixels ({image.width}x{image.height}).", name)
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise InputImageError(
            f"{name} is a strip of {image.width}x{image.height} pixels; the longer edge can be at most "
            f"{MAX_ASPECT_RATIO} times the shorter one.",
            name,
        )
    if getattr(image, "tile", None):  # for a PIL image opened by the caller
        _check_budget(image, name, max_pixels)
    _read_pixels(image)
    wide = getattr(image, "wide_samples", False)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = _turned(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return rgb_image(_from_16_bit(image, name))
    if image.mode == "F":
        raise InputImageError(f"{name} has floating-point pixels without a known range; save it with 8 bits.", name)
    if wide:
        top = max(image.getchannel(index).getextrema()[1] for index in range(3))
        if 0 < top < DARK_8_BIT:
            raise InputImageError(
                f"{name} has 16-bit samples only up to {top * 256 + 255}; save it with 8 bits.", name
            )
    if image.has_transparency_data:
        return _on_white(image)
    return rgb_image(image)


def _turned(image: Image.Image) -> Image.Image:
    tags, key = getattr(image, "tag_v2", None), image.info.get("transparency")
    turned = ImageOps.exif_transpose(image)
    if tags is not None:
        turned.tag_v2 = tags
    if key is not None:
        turned.info["transparency"] = key
    return turned


def _note_samples(image: Any) -> None:
    """Record what Pillow forgets when it reads the pixels: whether colours had 16 bits; scale their colour key."""
    raw = ""
    for *_, args in getattr(image, "tile", ()):
        raw = args if isinstance(args, str) else str(args[0]) if args else ""
    key = image.info.get("transparency")
    if image.format == "PNG" and isinstance(key, tuple) and ";16" in raw:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif image.format == "PNG" and isinstance(key, int) and raw in ("L;2", "L;4"):  # scaled like the pixels
        image.info["transparency"] = key * (85 if raw == "L;2" else 17)
    if ";16" in raw and image.mode in ("RGB", "RGBA", "RGBX"):
        image.wide_samples = True


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _on_white(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", image.size)
    for box in _bands(image):
        layer = image.crop(box).convert("RGBA")
        canvas.paste(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"), box)
    return canvas


def _from_16_bit(image: Image.Image, name: str) -> Image.Image:
    low, high = image.getextrema() if image.mode in ("I", "I;16") else _extrema(image)
    if low < 0 or high > 65535:
        raise InputImageError(
            f"{name} has integers from {low} to {high}, expected 0 to 65535; save it with 8 bits.", name
        )
    tags = getattr(image, "tag_v2", {})
    peak = _stated_peak(tags)
    if peak is None:
        peak = 65535
        if 0 < high < DARK_16_BIT and not all((_values(image, box) % WIDENED == 0).all() for box in _bands(image)):
            raise InputImageError(
                f"{name} has 16-bit values only up to {high}, like a camera with fewer bits, and does not state the "
                "value of white; save it with 8 bits, or scale it to 0..65535.",
                name,
            )
    key = image.info.get("transparency")
    inverted = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    canvas = Image.new("L", image.size)
    for box in _bands(image):
        values = _values(image, box)
        # Exact for 8-bit images widened to 16 bits (65535 = 255 * 257), which Pillow's own conversion would clip.
        grey = ((np.minimum(values, peak) * 255 + peak // 2) // peak).astype(np.uint8)
        if inverted:  # Pillow only inverts 8 bits
            grey = 255 - grey
        if isinstance(key, int):
            grey[values == key] = 255
        canvas.paste(Image.fromarray(grey), box)
    return canvas


def _values(image: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    return np.asarray(image.crop(box)).astype(np.int64)


def _extrema(image: Image.Image) -> tuple[int, int]:
    parts = [_values(image, box) for box in _bands(image)]
    return min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)


def _stated_peak(tags: Any) -> int | None:
    """Return the white level stated in a TIFF; `None` if it is that of 16 bits or missing."""
    stated = tags.get(MAX_SAMPLE_VALUE)
    stated = stated[0] if isinstance(stated, tuple) else stated
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))
    depth = bits[0] if isinstance(bits, tuple) else bits
    if isinstance(stated, int) and 0 < stated < 65535:
        return stated
    return (1 << depth) - 1 if 8 < depth < 16 else None


def animation_times(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> list[float]:
    """Return the times at which the frames of an animation are shown.

    Args:
        path: a GIF, WebP or PNG file.
        max_pixels: limit for each frame; see `load_image`.

    Returns:
        `(frames + 1,)` seconds from the start: the beginning of every frame, then the end. For a still image two
        numbers, the second of which is 0.

    Raises:
        InputImageError: as for `load_image`.
    """
    name = describe_image_source(path)
    times = [0.0]
    with _animation(path, name, max_pixels) as image:
        count = getattr(image, "n_frames", 1)
        if count == 1:
            return [0.0, 0.0]
        for number in range(count):
            image.seek(number)
            _check_budget(image, name, max_pixels)
            _read_pixels(image)  # WebP only gives the duration of a frame after this
            # Browsers show a frame without a duration, or below 20 ms, for 100 ms.
            lasts = float(image.info.get("duration") or 0)
            times.append(times[-1] + (lasts if lasts >= 20 else 100.0) / 1000)
    return times


def animation_frames(
    path: str | Path, numbers: Sequence[int], *, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Yield frames of an animation as images like those from `load_image`.

    Args:
        path: a GIF, WebP or PNG file.
        numbers: ascending numbers of the frames, starting at 0.
        max_pixels: limit for each frame; see `load_image`.

    Raises:
        InputImageError: as for `load_image`.
    """
    name = describe_image_source(path)
    with _animation(path, name, max_pixels) as image:
        for number in numbers:
            image.seek(number)
            found = _to_rgb(image, name, max_pixels)
            yield found.copy() if found is image else found


@contextmanager
def _animation(path: str | Path, name: str, max_pixels: int) -> Iterator[Image.Image]:
    with open_regular_file(path, name) as file, _decoding(name), _identified(file, name) as image:
        if image.format not in ("GIF", "WEBP", "PNG"):
            raise InputImageError(f"{name} has the format {image.format}; animations must be GIF, WEBP or PNG.", name)
        _check_budget(image, name, max_pixels)
        yield image
