"""Pictures inside zip files, read without unpacking."""

from __future__ import annotations

import functools
import io
import os
import zipfile
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

__all__ = ["list_members", "picture_format", "read_member"]


def list_members(path: Path) -> list[str]:
    """The files in a zip, in its order.

    Raises:
        ValueError: naming the zip, if it is broken, or if a member would leave the folder it is unpacked in.
    """
    with _open(path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
    for name in names:
        plain = PurePosixPath(name.replace("\\", "/"))
        if plain.is_absolute() or ".." in plain.parts or (plain.parts and plain.parts[0].endswith(":")):
            raise ValueError(
                f"{path} holds {name!r}, which leads out of its folder. Do not unpack it; fetch it again."
            )
    return names


def read_member(path: Path, name: str) -> bytes:
    """The bytes of a member.

    Raises:
        ValueError: naming zip and member, if it cannot be read.
    """
    status = path.stat()
    try:
        return _kept_open(path, os.getpid(), status.st_mtime_ns, status.st_size).read(name)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError) as error:
        raise ValueError(f"{name} in {path} cannot be read: {error}. Fetch this file again.") from error


def picture_format(content: bytes, where: str) -> str:
    """Decode a picture in full and return its format; a `ValueError` names `where` if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return str(image.format)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{where} ({len(content)} bytes) cannot be decoded: {error}. Fetch this file again."
        ) from error


@functools.lru_cache(maxsize=4)
def _kept_open(path: Path, process: int, changed: int, size: int) -> zipfile.ZipFile:
    """Open once per process, because reading the list of 100,000 members takes a second; anew if the file changed."""
    return _open(path)


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path} cannot be read as zip: {error}. Fetch this file again.") from error
