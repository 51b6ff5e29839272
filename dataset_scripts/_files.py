"""Raw files as the builders read them: walked in a stable order, never out of their folder, decoded in one place."""

from __future__ import annotations

import hashlib
import io
import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from PIL import Image, UnidentifiedImageError

__all__ = [
    "PICTURE_SUFFIXES",
    "first_names",
    "identical_files",
    "inner_path",
    "is_picture",
    "list_files",
    "open_image",
    "read_json",
    "read_table",
    "refuse_outside",
    "require_folder",
    "require_same_size",
    "stable_id",
    "walk_files",
]

T = TypeVar("T")

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
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(source, Path):
            where, size = where or str(source), source.stat().st_size
        else:
            size = len(source)
        raise ValueError(f"{where} ({size} bytes) cannot be decoded: {error}. Fetch this file again.") from error


def identical_files(files: Iterable[tuple[T, Callable[[], bytes]]]) -> list[list[T]]:
    """Groups of two or more files with the same bytes, in the order given.

    Args:
        files: what stands for each file, and how to read it.
    """
    by_digest: dict[str, list[T]] = defaultdict(list)
    for file, read in files:
        by_digest[hashlib.sha256(read()).hexdigest()].append(file)
    return [group for group in by_digest.values() if len(group) > 1]


def read_json(path: Path, remedy: str) -> Any:
    """Parse a JSON file in UTF-8, or in UTF-16 as some tools of Windows write it.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: naming it, if it is no JSON, or if an object has a key twice, of which a reader sees one only.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. {remedy}")
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_without_repeats)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Fetch this file again.") from error


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
