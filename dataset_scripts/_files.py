"""Raw files as the builders read them: walked in a stable order, never out of their folder, decoded in one place."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

__all__ = [
    "PICTURE_SUFFIXES",
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

# The longer marks first: that of UTF-32 begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def require_folder(path: Path, what: str, remedy: str) -> Path:
    """Return `path` if it is a folder, else raise a `FileNotFoundError` that says what it should hold."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder, but it should hold {what}. {remedy}")
    return path


def list_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def walk_files(root: Path, folder: Path) -> Iterator[Path]:
    """The files below `folder` in a stable order, without hidden ones.

    Raises:
        ValueError: for a link that leaves `root` or leads to a folder: its content depends on the machine, or would be
            read twice.
    """
    refuse_outside(root, folder)
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise ValueError(f"{Path(parent) / name} is a link to a folder; put the folder itself in its place.")
        for name in sorted(files):
            if not name.startswith("."):
                path = Path(parent) / name
                if path.is_symlink():  # to resolve every path takes ten times as long as to list them
                    refuse_outside(root, path)
                yield path


def refuse_outside(root: Path, path: Path) -> None:
    """Raise a `ValueError` if `path` is a link, or lies behind one, that leaves `root`."""
    if not path.resolve().is_relative_to(root):
        raise ValueError(f"{path} leads out of {root}, to {path.resolve()}. Replace it by the file itself.")


def is_picture(path: Path) -> bool:
    """Whether the file name has the extension of a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def open_image(source: Path | bytes, where: str = "", mode: str | None = None) -> Image.Image:
    """Decode a picture in full; the only place of the builders that does.

    Args:
        source: a file, or the content of one.
        where: what the message of an error calls it; needed for `bytes`.
        mode: a mode of Pillow to convert to, such as `"RGB"` or `"L"`; as it is stored if `None`.

    Returns:
        The decoded picture. Without `mode` its `format` is that of the content, for example `"JPEG"`.

    Raises:
        ValueError: naming the picture and its size in bytes, if it is empty, truncated or not a picture.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
            return image if mode is None else image.convert(mode)
    except (
        OSError,
        SyntaxError,
        ValueError,
        RuntimeError,
        LookupError,
        TypeError,
        Image.DecompressionBombError,
    ) as error:
        if isinstance(source, Path):
            where, size = where or str(source), source.stat().st_size
        else:
            size = len(source)
        raise ValueError(f"{where} ({size} bytes) cannot be decoded: {error}. Fetch this file again.") from error


def identical_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of two or more files with the same bytes, in the order given."""
    by_digest: Mapping[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_digest[hashlib.sha256(path.read_bytes()).hexdigest()].append(path)
    return [group for group in by_digest.values() if len(group) > 1]


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, or in UTF-16.

    Raises:
        ValueError: naming the file and the encoding it seems to be in, if it is in another one, or if it is not a
            regular file (a pipe would be waited for without end).
        OSError: if it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file.")
    return decode_text(path.read_bytes(), str(path))


def decode_text(content: bytes, where: str) -> str:
    """The text in `content`; see `read_text`. `where` names it in the message of an error."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), None)
    if encoding is None:  # text has NUL in every second byte there, and nowhere else
        start = content[:256]
        halves = {"utf-16-le": start[1::2], "utf-16-be": start[::2]}
        encoding = next((name for name, half in halves.items() if half.count(0) > len(half) // 2), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        hint = "it seems to be cp1252" if encoding == "utf-8" and 0 not in content else "it is no text"
        raise ValueError(
            f"{where} is not in {encoding.upper()} (byte {content[error.start]:#04x} at {error.start}); {hint}. Save "
            "it again in UTF-8."
        ) from error


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: naming `where`, if it is not JSON, if it is nested too deep, if a number is too long, or if an
            object has a key twice, of which a reader sees one only.
    """
    return _parsed(text, f"{where} is")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise ValueError(f"{where} not valid JSON (nested too deep).") from error
    except ValueError as error:
        raise ValueError(f"{where} not valid JSON ({error}).") from error


def parse_json_lines(text: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the place, for messages, and the value of every line that is not blank; errors as in `parse_json`."""
    # Lines end at "\n" alone: JSON allows other separators inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{where}, line {number}"
            yield place, _parsed(line, f"{place}:")


def read_csv(path: Path, fill: bool = False) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The columns of a table separated by commas, and the place, for messages, and the fields of each row.

    Args:
        path: the file; see `read_text`.
        fill: a row may leave out fields at its end; they are empty then.

    Raises:
        ValueError: naming the file, if it cannot be read as a table, if a column has a name twice, or if a row has
            more or fewer fields than there are columns.
        OSError: if it cannot be read.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows = []
    try:
        columns = next(lines, [])
        if repeated := [name for name, count in Counter(columns).items() if count > 1]:
            raise ValueError(f"{path} has the column {first_names(map(repr, repeated))} twice. Rename one.")
        for fields in lines:
            where = f"{path}, line {lines.line_num}"
            if not fields:
                continue
            if fill:
                fields += [""] * (len(columns) - len(fields))
            if len(fields) != len(columns):
                raise ValueError(
                    f"{where} has {len(fields)} fields, but there are {len(columns)} columns. A field that holds a "
                    "comma must stand in double quotes."
                )
            rows.append((where, dict(zip(columns, fields, strict=True))))
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num} is not a row of a table: {error}.") from error
    return columns, rows


def read_json(path: Path, remedy: str) -> Any:
    """Parse a JSON file.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: naming it; see `read_text` and `parse_json`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. {remedy}")
    try:
        return parse_json(read_text(path), str(path))
    except ValueError as error:
        raise ValueError(f"{error} Fetch this file again.") from error


def read_table(path: Path, remedy: str) -> dict[str, dict[str, Any]]:
    """`read_json` of a list that gives a record for each name.

    Raises:
        ValueError: naming the list, and the first name whose record is none.
    """
    table = read_json(path, remedy)
    if not isinstance(table, dict):
        raise ValueError(f"{path} is a {type(table).__name__}, expected {{name: {{...}}}}. Fetch this file again.")
    for name, row in table.items():
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {name} is {row!r}, expected a record {{...}}. Fetch this file again.")
    return table


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        raise ValueError(f"the same key twice: {first_names(repeated)}")
    return table


def stable_id(*parts: str) -> str:
    """Join with `/` and normalise: some file systems store accents decomposed, others composed."""
    return unicodedata.normalize("NFC", "/".join(parts))


def first_names(names: Iterable[Any], limit: int = 3) -> str:
    """`a, b, c and 5 more`, for messages about many files."""
    listed = [str(name) for name in names]
    rest = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + rest


def inner_path(listed: str, where: str) -> PurePosixPath:
    """A path that a list gives, with either kind of separator.

    Raises:
        ValueError: naming the list (`where`), for an absolute path or one with `..` in it.
    """
    path = PurePosixPath(listed.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0].endswith(":"):
        raise ValueError(f"{where} names {listed!r}, which leads out of the folder. Correct the list.")
    return path


def require_same_size(mask: Image.Image, picture: Image.Image, where: str) -> None:
    """Raise a `ValueError` that names `where` if a mask does not lie pixel by pixel on its picture."""
    if mask.size != picture.size:
        raise ValueError(f"{where}: the mask is {mask.size}, its picture {picture.size}. Fetch both again.")
