"""Pictures inside zip and tar files, read without unpacking."""

from __future__ import annotations

import functools
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

__all__ = ["list_members", "picture_format", "read_member", "read_picture"]

BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError, KeyError)


class Archive(NamedTuple):
    """An open archive: the names of its files in their order, and how to read one."""

    names: list[str]
    read: Callable[[str], bytes]


def list_members(path: Path) -> list[str]:
    """The files in a zip or tar (compressed or not, whatever its name says), in its order.

    Raises:
        ValueError: naming the archive, if it is broken, if a member would leave the folder it is unpacked in or is a
            link, or if two have the same name.
    """
    seen: set[str] = set()
    names = _kept_open(*_identity(path)).names
    for name in names:
        plain = PurePosixPath(name.replace("\\", "/"))
        if plain.is_absolute() or ".." in plain.parts or (plain.parts and plain.parts[0].endswith(":")):
            raise ValueError(
                f"{path} holds {name!r}, which leads out of its folder. Do not unpack it; fetch it again."
            )
        if name in seen:
            raise ValueError(f"{path} holds {name!r} twice. Fetch this file again.")
        seen.add(name)
    return names


def read_member(path: Path, name: str) -> bytes:
    """The bytes of a member. Compressed tars are fast in the order of their members only.

    Raises:
        ValueError: naming archive and member, if it cannot be read.
    """
    try:
        return _kept_open(*_identity(path)).read(name)
    except BROKEN as error:
        raise ValueError(f"{name} in {path} cannot be read: {error}. Fetch this file again.") from error


def read_picture(path: Path, name: str) -> dict[str, Any]:
    """The columns `image` and `file_format` of a member, after decoding it; errors as in `read_member`."""
    content = read_member(path, name)
    image = {"bytes": content, "path": PurePosixPath(name).name}
    return {"image": image, "file_format": picture_format(content, f"{name} in {path}")}


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


def _identity(path: Path) -> tuple[Path, int, int, int]:
    status = path.stat()
    return path, os.getpid(), status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=4)
def _kept_open(path: Path, process: int, changed: int, size: int) -> Archive:
    """Open once per process, because reading the list of 100,000 members takes a second; anew if the file changed."""
    try:
        return _open_zip(path) if path.suffix.lower() == ".zip" else _open_tar(path)
    except BROKEN as error:
        kind = "zip" if path.suffix.lower() == ".zip" else "tar"
        raise ValueError(f"{path} cannot be read as {kind}: {error}. Fetch this file again.") from error


def _open_zip(path: Path) -> Archive:
    archive = zipfile.ZipFile(path)
    return Archive([info.filename for info in archive.infolist() if not info.is_dir()], archive.read)


def _open_tar(path: Path) -> Archive:
    archive = tarfile.open(path, "r:*")
    infos = [info for info in archive.getmembers() if not info.isdir()]
    for info in infos:
        if not info.isfile():
            raise ValueError(f"{path} holds {info.name!r}, which is a link or a device. Fetch this file again.")
    # The library takes a file that was cut off between two members for a whole one.
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends without the mark of its end")
    by_name = {info.name: info for info in infos}

    def read(name: str) -> bytes:
        file = archive.extractfile(by_name[name])
        assert file is not None  # it is a file, see above
        return file.read()

    return Archive([info.name for info in infos], read)
