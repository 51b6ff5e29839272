"""File access for the builders: a stable order, never outside the folder, decoding in one place."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import os
import stat
import struct
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

__all__ = [
    "PICTURE_SUFFIXES",
    "CheckedPicture",
    "check_image",
    "decode_text",
    "first_names",
    "identical_files",
    "inner_path",
    "is_picture",
    "list_files",
    "open_image",
    "parse_json",
    "parse_json_lines",
    "read_csv",
    "read_json",
    "read_table",
    "read_text",
    "refuse_outside",
    "require_folder",
    "require_same_size",
    "stable_id",
    "walk_files",
]

T = TypeVar("T")

# The same as those of `deepfake_detectors.modeling.image_loading`.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")
MAX_PIXELS = 100_000_000
BYTES_PER_PIXEL = 10
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
CANVAS_BYTES = {"WEBP": 18, "AVIF": 21, "HEIF": 21, "JPEG2000": 25}
NEW_SUBFILE_TYPE, OLD_SUBFILE_TYPE, MAX_SAMPLE_VALUE = 254, 255, 281
NOT_FULL_SIZE = 0b101
MAX_PAGES = 64
DARK_16_BIT, DARK_8_BIT = 1 << 14, 1 << 4
WIDENED = 257
BAND = 1 << 20
LYING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
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
    Image.DecompressionBombError,
)

# JPEG markers, as in `deepfake_detectors.modeling.image_jpeg`.
END = b"\xff\xd9"
COEFFICIENTS = 64
PROGRESSIVE = 0xC2
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
# Filling for the missing end. A decoder would read the bits missing from a truncated image from here, after each
# restart marker if one is due.
PATTERNS = (b"\x00", b"\xfe", b"\x9d\x36\xe1\x52\xb7\x0c\x68\xdb", b"\x55\x2a\xcb")
FILLINGS = tuple(
    pattern * 256 + b"".join(bytes((0xFF, 0xD0 + number)) + pattern * 32 for number in range(8)) * 2
    for pattern in PATTERNS
)

# Longer marks first, because that of UTF-32 begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def require_folder(path: Path, what: str, remedy: str) -> Path:
    """Return `path` if it is a folder, otherwise raise a `FileNotFoundError` that names the expected content."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder; it should contain {what}. {remedy}")
    return path


def list_files(folder: Path) -> list[Path]:
    """Return the files in a folder, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def walk_files(root: Path, folder: Path) -> Iterator[Path]:
    """Return the files below `folder` in a stable order, without hidden ones.

    Raises:
        ValueError: for a link that leaves `root` or points to a folder: its content depends on the machine, or would
            be read twice.
    """
    refuse_outside(root, folder)
    for parent, folders, files in os.walk(folder):
        above = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (above / name).is_symlink():
                raise ValueError(f"{above / name} is a link to a folder; put the folder itself in its place.")
        for name in sorted(files):
            if not name.startswith("."):
                path = above / name
                if path.is_symlink():  # to resolve every path takes ten times as long as to list them
                    refuse_outside(root, path)
                yield path


def refuse_outside(root: Path, path: Path) -> None:
    """Raise a `ValueError` if `path` leaves `root` through a link."""
    if not path.resolve().is_relative_to(root):
        raise ValueError(f"{path} is outside {root}, at {path.resolve()}. Replace the link by the file itself.")


def is_picture(path: Path) -> bool:
    """Return whether the file name has an image extension."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def open_image(
    source: Path | str | bytes, where: str = "", mode: str | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode an image completely; builders decode only here.

    The counterpart of the package's `load_image`, because loading scripts must be self-contained: the same formats,
    the same limits, and with `mode` the same pixels. Of 16-bit images it converts only plain ones and refuses the
    rest.

    Args:
        source: a file, or its content.
        where: name for error messages; needed for `bytes`.
        mode: `"RGB"` (upright, transparency blended with white) or `"L"` (upright, transparency dropped, as for
            masks); `None` does not convert.
        max_pixels: largest width times height to decode; decoding uses at most ten bytes per pixel.

    Returns:
        The decoded image. Without `mode` its `format` is detected from the content, for example `"JPEG"`.

    Raises:
        ValueError: naming the image and its size in bytes, if it is empty, truncated, too large, in an unsupported
            format or not a regular file.
    """
    return _read_picture(source, where, lambda content: _image(content, mode, max_pixels))


class CheckedPicture(NamedTuple):
    """What is known of a picture file once all of it was read.

    Args:
        content: of the file.
        format: by content, for example `"JPEG"`.
        size: width and height, upright.
    """

    content: bytes
    format: str
    size: tuple[int, int]


def check_image(source: Path | str | bytes, where: str = "", max_pixels: int = MAX_PIXELS) -> CheckedPicture:
    """Read a picture file to its end as `open_image` does, for whoever needs its file and not its pixels.

    Of a JPEG every coefficient is read, but only an eighth of the pixels in each direction is computed: nothing can
    fail in the rest.

    Args:
        source, where, max_pixels: as in `open_image`.

    Raises:
        ValueError: as `open_image`.
    """
    return _read_picture(source, where, lambda content: _checked(content, max_pixels))


def _read_picture(source: Path | str | bytes, where: str, read: Callable[[bytes], T]) -> T:
    where, size = where or str(source), -1
    try:
        content = source if isinstance(source, bytes) else _content(str(source))
        size = len(content)
        return read(content)
    except _RefusedError as error:
        raise ValueError(f"{where} ({size} bytes) {error}") from error
    except DECODING_ERRORS as error:
        # Pillow's own message names an object in memory.
        reason = "not an image in a supported format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{where} ({size} bytes) cannot be decoded: {reason}. Download this file again.") from error


def _content(path: str) -> bytes:
    # Plain calls: where builders run, `datasets` puts its own `Path` and `open` in the place of these, for files on
    # the Hub, which take several times as long.
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - and to open a pipe waits for its writer
        raise ValueError("it is not a regular file")
    with io.FileIO(path) as file:
        return file.readall()


def _image(content: bytes, mode: str | None, max_pixels: int) -> Image.Image:
    image = _decoded(content, max_pixels)
    return image if mode is None else _converted(image, mode)


def _checked(content: bytes, max_pixels: int) -> CheckedPicture:
    image, size = _opened(content, max_pixels)
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (1, 1))
    image = _loaded(image, content)
    lying = image.getexif().get(ExifTags.Base.Orientation, 1) in LYING
    return CheckedPicture(content, str(image.format), size[::-1] if lying else size)


def identical_files(files: Iterable[tuple[T, Callable[[], bytes]]]) -> list[list[T]]:
    """Return groups of two or more files with the same bytes, in the given order.

    Args:
        files: a name for each file, and a function that reads it.
    """
    by_digest: dict[str, list[T]] = defaultdict(list)
    for file, read in files:
        by_digest[hashlib.sha256(read()).hexdigest()].append(file)
    return [group for group in by_digest.values() if len(group) > 1]


class _StrictFile(io.BytesIO):
    """A stream that raises an error at its end while pixels are read, even with `ImageFile.LOAD_TRUNCATED_IMAGES`."""

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if size and not found:
            raise EOFError("image file is truncated")
        return found


class _RefusedError(ValueError):
    """Raised for a complete file that cannot be read as it is; another copy would not help."""


def _decoded(content: bytes, max_pixels: int) -> Image.Image:
    image, _ = _opened(content, max_pixels)
    return _loaded(image, content)


def _opened(content: bytes, max_pixels: int) -> tuple[Any, tuple[int, int]]:
    """A picture within the budget whose pixels are not read yet, and its size as stored."""
    image = _identified(io.BytesIO(content))
    if image.format == "TIFF":
        _seek_full_size(image)
    _check_budget(image, max_pixels)
    _note_samples(image)
    return image, image.size


def _loaded(image: Any, content: bytes) -> Any:
    """The picture with its pixels."""
    if image.format not in ("JPEG", "MPO"):
        image.load()
        return image
    image.fp = _StrictFile(content)
    try:
        image.load()
    except EOFError:
        whole = complete_jpeg(content, lambda content: _identified(io.BytesIO(content)).tobytes())
        if whole is None:
            raise
        image = _identified(io.BytesIO(whole))
        image.load()
    return image


def _identified(file: io.BytesIO) -> Any:
    """Open like `Image.open`, whose limit applies to the whole process, with our own limit."""
    Image.init()
    start = file.read(16)
    for form in FORMATS:
        if form not in Image.OPEN:  # this Pillow was built without the library
            continue
        factory, accept = Image.OPEN[form]
        try:
            accepted = accept is None or accept(start)
            if accepted and not isinstance(accepted, str):
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            pass  # as in `Image.open`, the next format is tried
    raise ValueError(f"it is not an image in one of the formats {', '.join(FORMATS)}")


def _check_budget(image: Any, max_pixels: int) -> None:
    pixels = image.width * image.height
    if image.format == "TIFF":
        tile = [int(image.tag_v2.get(tag, 0)) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        pixels = max(pixels, tile[0] * tile[1])
    each = MODE_BYTES.get(image.mode, 4) + (0 if image.mode == "RGB" else 4)
    if image.info.get("progressive"):
        each += 2 * len(image.getbands())
    each = max(each, CANVAS_BYTES.get(image.format or "", 0))
    if pixels > max_pixels or pixels * each > max_pixels * BYTES_PER_PIXEL:
        raise _RefusedError(
            f"is too large: {image.width}x{image.height} pixels need about {pixels * each / 1e6:.0f} MB, but the "
            f"limit is {max_pixels / 1e6:g} megapixels and {max_pixels * BYTES_PER_PIXEL / 1e6:.0f} MB. Raise "
            "`max_pixels` to read it."
        )


def _seek_full_size(image: Any) -> None:
    """Seek to the full-size page of a TIFF whose first page is a thumbnail."""
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
        raise _RefusedError("starts with a thumbnail and has no full-size page; convert it to JPEG or PNG first.")
    image.seek(place)


def _is_full_size(image: Any) -> bool:
    kind, old = image.tag_v2.get(NEW_SUBFILE_TYPE, 0), image.tag_v2.get(OLD_SUBFILE_TYPE, 1)
    return not (int(kind) & NOT_FULL_SIZE) and int(old) != 2


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


def _converted(image: Any, mode: str) -> Image.Image:
    if mode == "L":
        image.info.pop("transparency", None)  # some authors mark black as transparent in masks
    if image.mode == "F":
        raise _RefusedError("has floating-point pixels without a known range; save it with 8 bits.")
    if getattr(image, "wide_samples", False):
        top = max(image.getchannel(index).getextrema()[1] for index in range(3))
        if 0 < top < DARK_8_BIT:
            raise _RefusedError(f"has 16-bit samples only up to {top * 256 + 255}; save it with 8 bits.")
    tags = getattr(image, "tag_v2", {})
    image = _upright(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bit(image, tags)
    if image.has_transparency_data:
        image = image.convert("RGBA") if mode == "L" else _on_white(image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image if mode == "RGB" else image.convert(mode)


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


def _from_16_bit(image: Image.Image, tags: Any) -> Image.Image:
    """Convert plain 16-bit grey to 8 bits; refuse anything that needs more than scaling."""
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 or _stated_peak(tags) is not None:
        raise _RefusedError("has 16-bit values whose white is not 65535; save it with 8 bits.")
    if "transparency" in image.info:
        raise _RefusedError("has 16-bit grey with transparency; save it with 8 bits.")
    values: Any = image.convert("I")
    low, high = values.getextrema()
    if low < 0 or high > 65535:
        raise _RefusedError(f"has integers from {low} to {high}, expected 0 to 65535; save it with 8 bits.")
    # Pillow's own conversion clips at 255.
    grey = values.point(lambda value: value * (1 / WIDENED) + 0.5)
    if 0 < high < DARK_16_BIT and grey.point(lambda value: value * WIDENED + 0).tobytes() != values.tobytes():
        raise _RefusedError(
            f"has 16-bit values only up to {high}, like a camera with fewer bits; save it with 8 bits."
        )
    return grey.convert("L")


def _stated_peak(tags: Any) -> int | None:
    """Return the white level stated in a TIFF; `None` if it is that of 16 bits or missing."""
    stated = tags.get(MAX_SAMPLE_VALUE)
    stated = stated[0] if isinstance(stated, tuple) else stated
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))
    depth = bits[0] if isinstance(bits, tuple) else bits
    if isinstance(stated, int) and 0 < stated < 65535:
        return stated
    return (1 << depth) - 1 if 8 < depth < 16 else None


def _upright(image: Any) -> Any:
    """Return the image rotated according to its EXIF data, with its colour key."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image
    turned = ImageOps.exif_transpose(image)
    if (key := image.info.get("transparency")) is not None:
        turned.info["transparency"] = key
    return turned


def complete_jpeg(content: bytes, pixels: Callable[[bytes], bytes]) -> bytes | None:
    """Add the end marker to a JPEG without one; return `None` if part of its image is missing.

    Every scan must be present, and the decoder must not need anything after the last one: different fillings before
    the end marker must give the same pixels.

    Args:
        content: bytes of the file.
        pixels: function that decodes a JPEG, for comparison.
    """
    if not _has_every_scan(content):
        return None
    found = {hashlib.sha256(pixels(content + filling + END)).digest() for filling in FILLINGS}
    return content + END if len(found) == 1 else None


def _has_every_scan(content: bytes) -> bool:
    """Return whether the scans contain all coefficients of all components completely."""
    missing: dict[int, list[int]] = {}
    progressive = False
    place = 2
    while True:
        place = content.find(b"\xff", place)
        if place < 0 or place + 1 >= len(content):
            break
        marker = content[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker == 0 or marker in ALONE:  # inside a scan
            place += 2
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        body = content[place + 4 : place + 2 + length]
        if length < 2 or len(body) < length - 2:
            return False
        if marker in FRAMES:
            progressive = marker == PROGRESSIVE
            # The lowest bit that each coefficient still lacks; coefficients that never appeared get 1 more than the
            # maximum.
            missing = {body[6 + 3 * index]: [99] * COEFFICIENTS for index in range(body[5])}
        elif marker == 0xDA:
            components = body[1 : 1 + 2 * body[0] : 2]
            start, end, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            lowest = bits & 15 if progressive else 0
            span = range(start, end + 1) if progressive else range(COEFFICIENTS)
            for component in components:
                for index in span:
                    missing[component][index] = lowest
        place += 2 + length
    return bool(missing) and not any(any(lacks) for lacks in missing.values())


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark, or in UTF-16.

    Raises:
        ValueError: naming the file and its probable encoding, if that is another one, or if it is not a regular file
            (reading a pipe could wait forever).
        OSError: if it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file.")
    return decode_text(path.read_bytes(), str(path))


def decode_text(content: bytes, where: str) -> str:
    """Decode the text in `content`; see `read_text`. `where` is its name in error messages."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), None)
    if encoding is None:  # UTF-16 text has NUL in every second byte, and only there
        start = content[:256]
        halves = {"utf-16-le": start[1::2], "utf-16-be": start[::2]}
        encoding = next((name for name, half in halves.items() if half.count(0) > len(half) // 2), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        hint = "it seems to be cp1252" if encoding == "utf-8" and 0 not in content else "it is not text"
        raise ValueError(
            f"{where} is not in {encoding.upper()} (byte {content[error.start]:#04x} at {error.start}); {hint}. Save "
            "it as UTF-8."
        ) from error


def parse_json(text: str, where: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: naming `where`, if it is not JSON, nested too deep, has too long a number, or has a key twice in an
            object (only one of which would be used).
    """
    return _parsed(text, f"{where} is")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise ValueError(f"{where} not valid JSON (nested too deeply).") from error
    except ValueError as error:
        raise ValueError(f"{where} not valid JSON ({error}).") from error


def parse_json_lines(text: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the location (for messages) and value of every non-blank line; errors as in `parse_json`."""
    # Lines end only at "\n", because JSON allows other separators inside strings.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{where}, line {number}"
            yield place, _parsed(line, f"{place}:")


def read_csv(path: Path, fill: bool = False) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """Read a CSV table: return its columns, and the location (for messages) and fields of each row.

    Args:
        path: the file; see `read_text`.
        fill: rows may omit fields at the end, which are then empty.

    Raises:
        ValueError: naming the file, if it cannot be parsed, if a column name occurs twice, or if a row has more or
            fewer fields than columns.
        OSError: if it cannot be read.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows = []
    try:
        columns = next(lines, [])
        if repeated := [name for name, count in Counter(columns).items() if count > 1]:
            raise ValueError(f"{path} has the column {first_names(map(repr, repeated))} twice. Rename one of them.")
        for fields in lines:
            where = f"{path}, line {lines.line_num}"
            if not fields:
                continue
            if fill:
                fields += [""] * (len(columns) - len(fields))
            if len(fields) != len(columns):
                raise ValueError(
                    f"{where} has {len(fields)} fields, but there are {len(columns)} columns. A field that contains "
                    "a comma must be in double quotes."
                )
            rows.append((where, dict(zip(columns, fields, strict=True))))
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num} is not a row of a table: {error}.") from error
    return columns, rows


def read_json(path: Path, remedy: str) -> Any:
    """Parse a JSON file.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: naming the file; see `read_text` and `parse_json`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. {remedy}")
    try:
        return parse_json(read_text(path), str(path))
    except ValueError as error:
        raise ValueError(f"{error} Download this file again.") from error


def read_table(path: Path, remedy: str) -> dict[str, dict[str, Any]]:
    """Read a JSON file with one record for each name.

    Raises:
        ValueError: naming the file, and the first name whose record is invalid.
    """
    table = read_json(path, remedy)
    if not isinstance(table, dict):
        raise ValueError(f"{path} is a {type(table).__name__}, expected {{name: {{...}}}}. Download this file again.")
    for name, row in table.items():
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {name} is {row!r}, expected a record {{...}}. Download this file again.")
    return table


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        raise ValueError(f"the same key twice: {first_names(repeated)}")
    return table


def stable_id(*parts: str) -> str:
    """Join with `/` and normalise Unicode: some file systems store accents decomposed, others composed."""
    return unicodedata.normalize("NFC", "/".join(parts))


def first_names(names: Iterable[Any], limit: int = 3) -> str:
    """Return text like `a, b, c and 5 more`, for messages about many files."""
    listed = [str(name) for name in names]
    rest = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + rest


def inner_path(listed: str, where: str) -> PurePosixPath:
    """Return a path from a list, with either kind of separator.

    Raises:
        ValueError: naming the list (`where`), for an absolute path or one that contains `..`.
    """
    path = PurePosixPath(listed.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0].endswith(":"):
        raise ValueError(f"{where} contains {listed!r}, which points outside the folder. Correct the list.")
    return path


def require_same_size(mask: Image.Image | CheckedPicture, picture: Image.Image | CheckedPicture, where: str) -> None:
    """Raise a `ValueError` that names `where` if a mask does not lie pixel by pixel on its picture, both upright."""
    sizes = [_upright_size(image) for image in (mask, picture)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{where}: the mask is {sizes[0]}, its image {sizes[1]}. Download both again.")


def _upright_size(image: Image.Image | CheckedPicture) -> tuple[int, int]:
    if isinstance(image, CheckedPicture):
        return image.size
    lying = image.getexif().get(ExifTags.Base.Orientation, 1) in LYING
    return (image.height, image.width) if lying else image.size
