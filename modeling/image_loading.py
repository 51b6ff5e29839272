"""Turns whatever a user calls a picture into an upright RGB image, or says in one sentence why it cannot."""

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
    "FORMATS",
    "MAX_PIXELS",
    "InputImageError",
    "animation_frames",
    "animation_times",
    "describe_image_source",
    "load_image",
    "load_mask",
    "load_stored_image",
    "read_image_facts",
    "read_image_size",
    "rgb_image",
    "upright_rgb",
]

# What is decoded, by Pillow's names. Never EPS, which starts a program, nor what has no size of its own or a decoder
# that nobody tests. HEIF comes from pillow-heif where that is installed.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")
HEIF = "HEIF"
SELF_MADE = frozenset({None, "", *FORMATS, HEIF})

# Detectors resize by the short edge: a 10000x1 file of a few kilobytes would become a picture of 12 gigabytes.
MAX_ASPECT_RATIO = 200

MAX_PIXELS = 100_000_000
# Decoding may take this many bytes for each pixel of the budget.
BYTES_PER_PIXEL = 10
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
# Their decoders hold whole canvases beside the picture. Peak bytes per pixel of RGBA pictures of 4 and 9 megapixels,
# measured with Pillow 12.3 and pillow-heif 1.8: WebP 18.0, JPEG 2000 24.6, AVIF 13.5 and HEIF 13.0 with 8 bits, HEIF
# 20.3 with more, which is taken for AVIF, too.
CANVAS_BYTES = {"WEBP": 18, "AVIF": 21, "HEIF": 21, "JPEG2000": 25}
BAND = 1 << 20  # pixels converted at a time

# The first bytes of what is not read, but deserves a better word.
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
VIDEO = (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"FLV\x01", b"\x30\x26\xb2\x75", b"OggS")
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})

# A TIFF page with one of these bits is a thumbnail or a mask of another page.
NEW_SUBFILE_TYPE, OLD_SUBFILE_TYPE, MAX_SAMPLE_VALUE = 254, 255, 281
NOT_FULL_SIZE = 0b101
MAX_PAGES = 64
# 16-bit pictures below this hold 10, 12 or 14 bits: a camera's values, not a picture's.
DARK_16_BIT, DARK_8_BIT = 1 << 14, 1 << 4
WIDENED = 257  # 65535 = 255 * 257

# What Pillow's decoders raise on damaged files, found by flipping bytes in twenty formats.
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

# Of `Image.info`: what is not a text that somebody wrote into the file.
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
    """Load one picture as RGB, 8 bits per channel, upright.

    The format is recognised by content, never by file name. EXIF orientation is applied, 16-bit greyscale is scaled
    to 8 bits, transparent pixels are laid over white, and of an animation or a multi-page file the first frame is
    taken (of an open PIL image, the current one; of a TIFF that begins with a thumbnail, the full-size page).

    Args:
        source: a path (`str` or `Path`), an http(s) URL, `bytes`, a binary file object, a PIL image, a numpy array
            (uint8 `(H, W)`, `(H, W, 3)` or `(H, W, 4)`; float in [0, 1] of shape `(H, W, 3)`, taken as
            `int(value * 255)`), a torch tensor (the same with channels first), or a dict: `{"image": ...}`, or the
            `{"bytes", "path"}` of an undecoded cell of `datasets`.
        timeout: seconds that a download may take, all of it.
        max_bytes: size that a download may have.
        max_pixels: width times height that is decoded; memory for decoding is bounded to ten bytes for each of them.
        allow_private_hosts: also download from loopback, link-local and private addresses.

    Returns:
        `PIL.Image.Image` of mode `RGB`.

    Raises:
        InputImageError: whatever is wrong with the input. It is a `ValueError`.
    """
    name = describe_image_source(source)
    source = innermost(source, name)
    if isinstance(source, torch.Tensor):
        return _to_rgb(tensor_to_image(source, name), name, max_pixels)
    if isinstance(source, np.ndarray):
        return _to_rgb(array_to_image(source, name), name, max_pixels)
    if isinstance(source, Image.Image):
        found = upright_rgb(source, max_pixels=max_pixels)
        return found.copy() if found is source else found
    if isinstance(source, str) and "://" in source:
        if not source.lower().startswith(("http://", "https://")):
            raise InputImageError(f"{name}: of URLs, only http:// and https:// are read; download it first.", name)
        source = download(source, name, timeout, max_bytes, allow_private_hosts)
    with _opened(source, name, max_pixels) as image:
        return _to_rgb(image, name, max_pixels)


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
    """Decode one picture file as it is stored: neither turned nor converted, with its `format`, `info` and tables.

    Args:
        source: a path, `bytes`, a binary file object, or an undecoded cell of `datasets`.
        max_pixels: see `load_image`.

    Raises:
        InputImageError: as `load_image`.
    """
    name = describe_image_source(source)
    with _opened(innermost(source, name), name, max_pixels) as image:
        return image


def load_mask(source: Any, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Load a mask as mode `L`, upright. Transparency is dropped: some authors mark the black of masks as transparent.

    Args:
        source: a PIL image, a path, `bytes`, or an undecoded cell of `datasets`.
        max_pixels: see `load_image`.

    Raises:
        InputImageError: as `load_image`.
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
    """Return width and height of a picture file as stored, from its header.

    Args:
        source: a path, `bytes`, or an undecoded cell of `datasets`.

    Raises:
        InputImageError: as `load_image`.
    """
    name = describe_image_source(source)
    found = innermost(source, name)
    with BytesIO(found) if isinstance(found, bytes) else open_regular_file(found, name) as file, _decoding(name):
        size: tuple[int, int] = _identified(file, name).size
        return size


def rgb_image(image: Image.Image) -> Image.Image:
    """Return an image that this program made itself in mode `RGB`; the same object where it is already."""
    return image if image.mode == "RGB" else image.convert("RGB")


def read_image_facts(source: str | Path) -> dict[str, Any]:
    """Read what an image file says of itself, without decoding its pixels.

    Args:
        source: a path.

    Returns:
        `format` (Pillow's name), `width` and `height` (as stored), `mode`, `frames`, `mime` (`None` if unknown),
        `exif` (name of a tag -> text) and `text` (name of a text chunk -> text). Texts have at most 2000 characters.

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
def _opened(source: Any, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """A file of any kind, decoded; on leaving, its handle is closed."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        file: BinaryIO = BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        file = open_regular_file(source, name)
    elif hasattr(source, "read"):
        file = BytesIO(read_file_object(source, name))
    else:
        raise InputImageError(f"{name} is not a picture. Accepted: {ACCEPTED_SOURCES}.", name)
    with file, _decoding(name):
        if not file.read(1):
            raise InputImageError(f"{name} is empty (0 bytes).", name)
        yield _decode(file, name, max_pixels)


class _StrictFile:
    """A file that has no end while pixels are read.

    Pillow completes a cut JPEG with grey where `ImageFile.LOAD_TRUNCATED_IMAGES` is set, which another thread may do
    at any moment; it never comes to that when reading beyond the end is an error.
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
    """The file ends before its picture does."""


def _decode(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    strict = _StrictFile(file)
    image = _identified(strict, name)
    if image.format == "TIFF":
        _seek_full_size(image, name)
    _check_budget(image, name, max_pixels)
    if image.format in ("JPEG", "MPO"):
        strict.begin_pixels()
    try:
        _read_pixels(image)
    except _TruncatedError:
        file.seek(0)
        content = complete_jpeg(file.read(), lambda content: _pixels(content, name))
        if content is None:
            raise
        image = _identified(BytesIO(content), name)
        _read_pixels(image)
    return image


def _pixels(content: bytes, name: str) -> bytes:
    image = _identified(BytesIO(content), name)
    image.load()
    return image.tobytes()


def _identified(file: Any, name: str) -> Any:
    """Open a file with the first format that takes it, as `Image.open` does, which has a limit of its own.

    That limit, `Image.MAX_IMAGE_PIXELS`, belongs to the whole process: to change it for one picture would change it
    for other threads, so the plug-ins are asked directly.
    """
    Image.init()
    file.seek(0)
    start = file.read(32)
    for form in (*FORMATS, HEIF):
        if form == HEIF and not (start[4:8] == b"ftyp" and _register_heif()):
            continue
        if form not in Image.OPEN:  # a Pillow without that library
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
        return f"{name} is a PostScript program, not a picture; convert it to PNG first."
    brand = start[8:12]
    if start[4:8] == b"ftyp" and brand in HEIF_BRANDS | AVIF_BRANDS:
        package = "pillow-heif" if brand in HEIF_BRANDS else "a newer pillow"
        return f"{name} is a HEIC or AVIF picture, which cannot be read here, or a damaged one; install {package}."
    moving = start[4:8] in (b"ftyp", b"moov", b"mdat") or (start[:4] == b"RIFF" and brand == b"AVI ")
    if moving or start.startswith(VIDEO):
        return f"{name} is a video, not a picture; `examine` judges videos."
    return (
        f"{name} is not a picture in a format that Pillow reads here (the content counts, not the file name): "
        f"{', '.join(FORMATS)}."
    )


def _seek_full_size(image: Any, name: str) -> None:
    """Turn to the full-size page of a TIFF whose first page is a thumbnail, as DNG, NEF and scanners write it."""
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
            f"{name} begins with a thumbnail, and its full-size picture is not in a page that is read here (raw files "
            "of cameras are like that); develop it to JPEG or PNG first.",
            name,
        )
    image.seek(place)


def _is_full_size(image: Any) -> bool:
    kind, old = image.tag_v2.get(NEW_SUBFILE_TYPE, 0), image.tag_v2.get(OLD_SUBFILE_TYPE, 1)
    return not (int(kind) & NOT_FULL_SIZE) and int(old) != 2


def _check_budget(image: Image.Image, name: str, max_pixels: int) -> None:
    """Refuse, before anything is decoded, what would take too much memory."""
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
            f"{name}: refused as a possible decompression bomb: {image.width}x{image.height} pixels take about "
            f"{pixels * each / 1e6:.0f} MB, the budget is {max_pixels / 1e6:g} megapixels and "
            f"{max_pixels * BYTES_PER_PIXEL / 1e6:.0f} MB. A larger `max_pixels` reads it.",
            name,
        )


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Name the input in whatever goes wrong while it is decoded."""
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
    """Undo `ImageFile.LOAD_TRUNCATED_IMAGES` where another library has set it: a half-grey picture has no verdict.

    Counted over all threads: the first that decodes takes it back, the last one restores it.
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
            raise _TruncatedError("another part of this program has just set LOAD_TRUNCATED_IMAGES; try again")


def _to_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    if image.format not in SELF_MADE and getattr(image, "tile", None):
        if image.format == "EPS":  # decoding it would run Ghostscript on an untrusted program
            raise InputImageError(f"{name} is a PostScript program, not a picture; convert it to PNG first.", name)
        raise InputImageError(f"{name} is of the format {image.format}; read are {', '.join(FORMATS)}.", name)
    if image.width == 0 or image.height == 0:
        raise InputImageError(f"{name} has no pixels ({image.width}x{image.height}).", name)
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise InputImageError(
            f"{name} is a strip of {image.width}x{image.height} pixels; the long edge may be at most "
            f"{MAX_ASPECT_RATIO} times the short one.",
            name,
        )
    if getattr(image, "tile", None):  # of a PIL image that the caller has opened
        _check_budget(image, name, max_pixels)
    _read_pixels(image)
    wide = getattr(image, "wide_samples", False)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = _turned(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return rgb_image(_from_16_bit(image, name))
    if image.mode == "F":
        raise InputImageError(f"{name} holds floating-point pixels without a known range; save it with 8 bits.", name)
    if wide:
        top = max(image.getchannel(index).getextrema()[1] for index in range(3))
        if 0 < top < DARK_8_BIT:
            raise InputImageError(
                f"{name} has 16-bit samples up to {top * 256 + 255} only; save it with 8 bits.", name
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
    """Keep what Pillow forgets once the pixels are read: whether colours had 16 bits. Their colour key shrinks too."""
    raw = ""
    for *_, args in getattr(image, "tile", ()):
        raw = args if isinstance(args, str) else str(args[0]) if args else ""
    key = image.info.get("transparency")
    if image.format == "PNG" and isinstance(key, tuple) and ";16" in raw:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif image.format == "PNG" and isinstance(key, int) and raw in ("L;2", "L;4"):  # stretched, as the pixels are
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
            f"{name} holds integers from {low} to {high}, expected 0 to 65535; save it with 8 bits.", name
        )
    tags = getattr(image, "tag_v2", {})
    peak = _stated_peak(tags)
    if peak is None:
        peak = 65535
        if 0 < high < DARK_16_BIT and not all((_values(image, box) % WIDENED == 0).all() for box in _bands(image)):
            raise InputImageError(
                f"{name} holds 16-bit values up to {high} only, as of a camera with fewer bits, and does not say "
                "which value is white; save it with 8 bits, or scale it to 0..65535.",
                name,
            )
    key = image.info.get("transparency")
    inverted = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    canvas = Image.new("L", image.size)
    for box in _bands(image):
        values = _values(image, box)
        # Exact for 8-bit pictures widened to 16 bits (65535 = 255 * 257), which Pillow's own conversion clips.
        grey = ((np.minimum(values, peak) * 255 + peak // 2) // peak).astype(np.uint8)
        if inverted:  # Pillow inverts 8 bits only
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
    """The value of white that a TIFF states, `None` where it is that of 16 bits or not stated."""
    stated = tags.get(MAX_SAMPLE_VALUE)
    stated = stated[0] if isinstance(stated, tuple) else stated
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))
    depth = bits[0] if isinstance(bits, tuple) else bits
    if isinstance(stated, int) and 0 < stated < 65535:
        return stated
    return (1 << depth) - 1 if 8 < depth < 16 else None


def animation_times(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> list[float]:
    """Return when the frames of an animation are shown.

    Args:
        path: a GIF, WebP or PNG file.
        max_pixels: of each frame; see `load_image`.

    Returns:
        `(frames + 1,)` seconds from the start: the beginning of every frame, then the end. Two numbers, and the second
        is 0, for a picture that does not move.

    Raises:
        InputImageError: as `load_image`.
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
            _read_pixels(image)  # WebP says how long a frame lasts only then
            # Browsers show a frame without a duration, or below 20 ms, for 100 ms.
            lasts = float(image.info.get("duration") or 0)
            times.append(times[-1] + (lasts if lasts >= 20 else 100.0) / 1000)
    return times


def animation_frames(
    path: str | Path, numbers: Sequence[int], *, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Yield frames of an animation, as `load_image` gives a picture.

    Args:
        path: a GIF, WebP or PNG file.
        numbers: which frames, from 0, ascending.
        max_pixels: of each frame; see `load_image`.

    Raises:
        InputImageError: as `load_image`.
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
            raise InputImageError(f"{name} is of the format {image.format}; animations are GIF, WEBP or PNG.", name)
        _check_budget(image, name, max_pixels)
        yield image
