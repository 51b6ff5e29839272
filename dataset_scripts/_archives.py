"""Images in zip, tar and LMDB files, read without unpacking.

DeepfakeBench packs frames into LMDB, one file per dataset: `<set>_lmdb/data.mdb`.
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
except ImportError:  # needed only for LMDB; reported when it is used
    lmdb = None

__all__ = ["find_key", "list_members", "mask_key", "read_member", "read_picture", "read_value", "store_file"]

# Errors that the libraries raise for damaged archives, both for headers and contents.
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, KeyError, IndexError, TypeError, OverflowError, RuntimeError, UnicodeDecodeError),
)
METHODS = {zipfile.ZIP_STORED: "none (0)", zipfile.ZIP_DEFLATED: "deflate (8)", zipfile.ZIP_BZIP2: "bzip2 (12)"}
ENCRYPTED = 0x1
LARGEST_MEMBER = 256 * 2**20  # each member is one image
SMALL, HIGHEST_RATIO = 2**20, 500
BLOCK = 2**20


class Archive(NamedTuple):
    """An open archive: the names of its files in order, and a function that reads one."""

    names: list[str]
    read: Callable[[str], bytes]


def list_members(path: Path) -> list[str]:
    """List the files in a zip or tar (compressed or not, regardless of its name), in archive order.

    Raises:
        ValueError: naming the archive, if it is damaged, if a member is a link or would be unpacked outside the
            folder, or if two members have the same name.
    """
    seen: set[str] = set()
    names = _kept_open(*_identity(path)).names
    for name in names:
        plain = PurePosixPath(name.replace("\\", "/"))
        if plain.is_absolute() or ".." in plain.parts or (plain.parts and plain.parts[0].endswith(":")):
            raise ValueError(
                f"{path} contains {name!r}, which would be unpacked outside its folder. Do not unpack it; download "
                "it again."
            )
        if name in seen:
            raise ValueError(f"{path} contains {name!r} twice. Download this file again.")
        seen.add(name)
    return names


def read_member(path: Path, name: str) -> bytes:
    """Return the bytes of a member. Compressed tars are fast only if members are read in order.

    Raises:
        ValueError: naming archive and member, if it cannot be read.
    """
    try:
        return _kept_open(*_identity(path)).read(name)
    except DAMAGED as error:
        raise ValueError(f"{name} in {path} cannot be read: {error}. Download this file again.") from error


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
    """Opened once per process, because listing 100,000 members takes a second; opened again if the file changed."""
    try:
        return _open_zip(path) if path.suffix.lower() == ".zip" else _open_tar(path)
    except DAMAGED as error:
        kind = "zip" if path.suffix.lower() == ".zip" else "tar"
        raise ValueError(f"{path} cannot be read as {kind}: {error}. Download this file again.") from error


def _open_zip(path: Path) -> Archive:
    archive = zipfile.ZipFile(path)
    infos = [info for info in archive.infolist() if not info.is_dir()]
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ValueError(
                f"{path} contains {info.filename!r}, which is a link or a device. Download this file again."
            )
        if info.flag_bits & ENCRYPTED:
            raise ValueError(
                f"{path} contains {info.filename!r}, which is encrypted. Unpack it with its password first."
            )
        if info.compress_type not in METHODS:
            raise ValueError(
                f"{path} contains {info.filename!r}, which is compressed with method {info.compress_type}; allowed "
                f"are {', '.join(METHODS.values())}. Repack it with one of those."
            )
        _check_size(path, info.filename, info.file_size, info.compress_size)
    # Overlapping members are how a small file can unpack to petabytes.
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        raise ValueError(f"{path} contains overlapping members. Download this file again.")
    return Archive([info.filename for info in infos], archive.read)


def _open_tar(path: Path) -> Archive:
    archive = tarfile.open(path, "r:*")
    end: Any = archive.fileobj
    if isinstance(end, lzma.LZMAFile):
        raise ValueError(f"{path} is compressed with LZMA; allowed are gzip, bzip2 and no compression. Repack it.")
    packed = isinstance(end, (gzip.GzipFile, bz2.BZ2File))
    limit = max(LARGEST_MEMBER, HIGHEST_RATIO * path.stat().st_size)
    infos = []
    # One at a time, because moving to the next member of a compressed tar unpacks this one.
    while (info := archive.next()) is not None:
        if info.issparse():
            raise ValueError(f"{path} contains {info.name!r}, which is a sparse file. Repack it without sparse files.")
        if not (info.isfile() or info.isdir()):
            raise ValueError(f"{path} contains {info.name!r}, which is a link or a device. Download this file again.")
        _check_size(path, info.name, info.size, info.size)
        if packed and info.offset_data + info.size > limit:
            raise ValueError(
                f"{path} unpacks to more than {limit} bytes at {info.name!r}. Check that it is the right file."
            )
        if info.isfile():
            infos.append(info)
    # The library accepts a file that was truncated between two members.
    if end is None:
        raise tarfile.ReadError("it is closed")
    end.seek(archive.offset)
    if end.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("its end marker is missing")
    # The checksum comes after the last byte, which the library does not read.
    while packed and end.read(BLOCK):
        if end.tell() > limit:
            raise ValueError(f"{path} unpacks to more than {limit} bytes after its end. Download this file again.")
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
            f"{path} contains {name!r}, which unpacks from {packed} to {size} bytes; allowed are at most "
            f"{LARGEST_MEMBER} bytes, and less than {HIGHEST_RATIO} times the packed size."
        )


def store_file(root: Path, dataset: str) -> Path:
    """Return the LMDB file of a dataset.

    Raises:
        ImportError: if lmdb is not installed.
        FileNotFoundError: if it is missing.
    """
    if lmdb is None:
        raise ImportError("Reading LMDB files needs lmdb: pip install 'deepfake-detectors[data]'")
    path = root / f"{dataset}_lmdb" / "data.mdb"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, but lmdb=True needs it for the frames of {dataset}.")
    return path


def find_key(path: Path, relative: PurePosixPath) -> str | None:
    """Return the key of a frame: `<set>\\<rest>`, with the path separators of the machine that packed it."""
    dataset, *rest = relative.parts
    with _environment(path).begin() as reading:
        for separator in ("/", "\\"):
            key = f"{dataset}\\{separator.join(rest)}"
            if reading.get(key.encode()) is not None:
                return key
    return None


def mask_key(key: str) -> str:
    """Return the key of a frame's mask, which is next to the frames, and under c23 for all levels."""
    separator = "/" if "/" in key else "\\"
    dataset, rest = key.split("\\", 1)
    parts = rest.split(separator)
    if "frames" in parts:
        parts[len(parts) - 1 - parts[::-1].index("frames")] = "masks"
    parts = ["c23" if part in ("raw", "c0", "c40") else part for part in parts]
    return f"{dataset}\\{separator.join(parts)}"


def read_value(path: Path, key: str) -> bytes | None:
    """Return the bytes of the image file for a key."""
    with _environment(path).begin() as reading:
        return reading.get(key.encode())


def _environment(path: Path) -> Any:
    return _open_lmdb(*_identity(path))


@functools.lru_cache(maxsize=4)
def _open_lmdb(path: Path, process: int, changed: int, size: int) -> Any:
    """Opened once per process, because an environment cannot be sent to another process."""
    try:
        environment = lmdb.open(str(path.parent), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise ValueError(f"{path} cannot be read as LMDB: {error}. Download this file again.") from error
    # The file is memory-mapped: reading pages missing from a truncated file would crash the process.
    expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < expected:
        environment.close()
        raise ValueError(f"{path} has {size} of {expected} bytes. Download this file again.")
    return environment
