"""Frames in the LMDB files that DeepfakeBench packs them into, one per data set: `<set>_lmdb/data.mdb`."""

from __future__ import annotations

import functools
import importlib
import os
from pathlib import Path, PurePosixPath
from typing import Any

lmdb: Any
try:
    lmdb = importlib.import_module("lmdb")
except ImportError:  # only this form needs it; said when it is used
    lmdb = None

__all__ = ["find_key", "mask_key", "read_value", "store_file"]


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
    status = path.stat()
    return _kept_open(path, os.getpid(), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _kept_open(path: Path, process: int, changed: int, size: int) -> Any:
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
