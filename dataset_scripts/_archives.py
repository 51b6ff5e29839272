"""Pictures inside zip, tar and LMDB files, read without unpacking.

LMDB is what DeepfakeBench packs frames into, one file per data set: `<set>_lmdb/data.mdb`.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import importlib
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ._files import MAX_PIXELS, check_image

lmdb: Any
try:
    lmdb = importlib.import_module("lmdb")
except ImportError:  # only this form needs it; said when it is used
    lmdb = None

__all__ = ["find_key", "list_members", "mask_key", "read_member", "read_picture", "read_value", "store_file"]

# What the libraries say of damaged archives, of their headers as well as of their contents.
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, KeyError, IndexError, TypeError, OverflowError, RuntimeError, UnicodeDecodeError),
)
METHODS = {zipfile.ZIP_STORED: "none (0)", zipfile.ZIP_DEFLATED: "deflate (8)", zipfile.ZIP_BZIP2: "bzip2 (12)"}
ENCRYPTED = 0x1
LARGEST_MEMBER = 256 * 2**20  # a member is one picture
SMALL, HIGHEST_RATIO = 2**20, 500
BLOCK = 2**20


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
    except DAMAGED as error:
        raise ValueError(f"{name} in {path} cannot be read: {error}. Fetch this file again.") from error


def read_picture(path: Path, name: str, max_pixels: int = MAX_PIXELS) -> dict[str, Any]:
    """The columns `image` and `file_format` of a member; errors as in `read_member` and `check_image`."""
    picture = check_image(read_member(path, name), f"{name} in {path}", max_pixels)
    image = {"bytes": picture.content, "path": PurePosixPath(name).name}
    return {"image": image, "file_format": picture.format}


def _identity(path: Path) -> tuple[Path, int, int, int]:
    status = path.stat()
    return path, os.getpid(), status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=4)
def _kept_open(path: Path, process: int, changed: int, size: int) -> Archive:
    """Open once per process, because reading the list of 100,000 members takes a second; anew if the file changed."""
    try:
        return _open_zip(path) if path.suffix.lower() == ".zip" else _open_tar(path)
    except DAMAGED as error:
        kind = "zip" if path.suffix.lower() == ".zip" else "tar"
        raise ValueError(f"{path} cannot be read as {kind}: {error}. Fetch this file again.") from error


def _open_zip(path: Path) -> Archive:
    archive = zipfile.ZipFile(path)
    infos = [info for info in archive.infolist() if not info.is_dir()]
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ValueError(f"{path} holds {info.filename!r}, which is a link or a device. Fetch this file again.")
        if info.flag_bits & ENCRYPTED:
            raise ValueError(f"{path} holds {info.filename!r}, which is encrypted. Unpack it with its password first.")
        if info.compress_type not in METHODS:
            raise ValueError(
                f"{path} holds {info.filename!r}, which is packed by method {info.compress_type}; allowed "
                f"are {', '.join(METHODS.values())}. Pack it again with one of those."
            )
        _check_size(path, info.filename, info.file_size, info.compress_size)
    # Members that share their bytes are how a small file holds petabytes.
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        raise ValueError(f"{path} holds members that overlap. Fetch this file again.")
    return Archive([info.filename for info in infos], archive.read)


def _open_tar(path: Path) -> Archive:
    archive = tarfile.open(path, "r:*")
    end: Any = archive.fileobj
    if isinstance(end, lzma.LZMAFile):
        raise ValueError(f"{path} is packed by LZMA; allowed are gzip, bzip2 and nothing. Pack it again.")
    packed = isinstance(end, (gzip.GzipFile, bz2.BZ2File))
    limit = max(LARGEST_MEMBER, HIGHEST_RATIO * path.stat().st_size)
    infos = []
    # One by one: to go to the next member of a packed tar is to unpack this one.
    while (info := archive.next()) is not None:
        if info.issparse():
            raise ValueError(f"{path} holds {info.name!r}, which is sparse. Pack it again without that.")
        if not (info.isfile() or info.isdir()):
            raise ValueError(f"{path} holds {info.name!r}, which is a link or a device. Fetch this file again.")
        _check_size(path, info.name, info.size, info.size)
        if packed and info.offset_data + info.size > limit:
            raise ValueError(f"{path} unpacks to more than {limit} bytes at {info.name!r}. Is it what it should be?")
        if info.isfile():
            infos.append(info)
    # The library takes a file that was cut off between two members for a whole one.
    if end is None:
        raise tarfile.ReadError("it is closed")
    end.seek(archive.offset)
    if end.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends without the mark of its end")
    # The checksum stands behind the last byte, where the library does not look.
    while packed and end.read(BLOCK):
        if end.tell() > limit:
            raise ValueError(f"{path} unpacks to more than {limit} bytes behind its end. Fetch this file again.")
    by_name = {info.name: info for info in infos}

    def read(name: str) -> bytes:
        file = archive.extractfile(by_name[name])
        if file is None:
            raise tarfile.TarError("it is not a file")
        return file.read()

    return Archive([info.name for info in infos], read)


def _check_size(path: Path, name: str, size: int, packed: int) -> None:
    if size > LARGEST_MEMBER or (size > SMALL and size > HIGHEST_RATIO * packed):
        raise ValueError(
            f"{path} holds {name!r}, which unpacks from {packed} to {size} bytes; a picture has at most "
            f"{LARGEST_MEMBER}, and not {HIGHEST_RATIO} times its packed size."
        )


def store_file(root: Path, dataset: str) -> Path:
    """The file of a data set.

    Raises:
        ImportError: if lmdb is not installed.
        FileNotFoundError: if it is missing.
    """
    if lmdb is None:
        raise ImportError("Reading LMDB files needs lmdb: pip install 'deepfake-detectors[data]'")
    path = root / f"{dataset}_lmdb" / "data.mdb"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, but lmdb=True reads the frames of {dataset} from it.")
    return path


def find_key(path: Path, relative: PurePosixPath) -> str | None:
    """The key of a frame: `<set>\\<rest>`, the rest with the separators of the machine that packed it."""
    dataset, *rest = relative.parts
    with _environment(path).begin() as reading:
        for separator in ("/", "\\"):
            key = f"{dataset}\\{separator.join(rest)}"
            if reading.get(key.encode()) is not None:
                return key
    return None


def mask_key(key: str) -> str:
    """The key of a frame's mask: beside the frames, and under c23 for all levels."""
    separator = "/" if "/" in key else "\\"
    dataset, rest = key.split("\\", 1)
    parts = rest.split(separator)
    if "frames" in parts:
        parts[len(parts) - 1 - parts[::-1].index("frames")] = "masks"
    parts = ["c23" if part in ("raw", "c0", "c40") else part for part in parts]
    return f"{dataset}\\{separator.join(parts)}"


def read_value(path: Path, key: str) -> bytes | None:
    """What lies under a key: the bytes of a picture file."""
    with _environment(path).begin() as reading:
        return reading.get(key.encode())


def _environment(path: Path) -> Any:
    return _open_lmdb(*_identity(path))


@functools.lru_cache(maxsize=4)
def _open_lmdb(path: Path, process: int, changed: int, size: int) -> Any:
    """Open once per process: an environment does not survive being sent to another one."""
    try:
        environment = lmdb.open(str(path.parent), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise ValueError(f"{path} cannot be read as LMDB: {error}. Fetch this file again.") from error
    # The file is mapped into memory: to read pages that were cut off would end the process.
    expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < expected:
        environment.close()
        raise ValueError(f"{path} has {size} of {expected} bytes. Fetch this file again.")
    return environment
