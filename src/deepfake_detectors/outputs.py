"""Output files and folders: written whole or not at all, never over an input, by one process at a time."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

__all__ = [
    "LOCK_FILES",
    "OutputInUseError",
    "folder_lock",
    "lock_beside",
    "opened_whole",
    "refuse_inputs",
    "short_name",
    "write_bytes",
    "write_json",
    "write_text",
    "written_whole",
]

logger = logging.getLogger(__name__)

# A lock inside a folder, and who holds it; both are gone when it is released.
LOCK_FILES = (".lock", ".lock-owner.json")
LONGEST_NAME = 200  # bytes; file systems take 255, and endings and hidden copies come on top


class OutputInUseError(ValueError):
    """Raised where another process is writing to the same output."""


# ---- folders --------------------------------------------------------------------------------------------------------


@contextmanager
def written_whole(
    output: str | Path, *, replace: bool = False, remedy: str = "choose another `output`"
) -> Iterator[Path]:
    """Give a folder to write into; it becomes `output` when the block ends without an error.

    The folder is built beside `output`. A folder that is replaced becomes `.<name>.old` before the new one takes its
    place. Where a process is killed between the two, the next call for the same `output` puts the old one back.

    Args:
        output: a new or empty folder; with `replace` also one that holds files.
        replace: replace what `output` holds, all of it.
        remedy: what to do where `output` is taken, for the message.

    Raises:
        ValueError: if `output` exists and is not an empty folder, or is a file; or if another process writes it.
        OSError: if the place cannot be written.
    """
    place = Path(output).resolve()
    with _parents_made(place), lock_beside(place):
        _settle(place)
        if place.exists() and not (place.is_dir() and (replace or not any(place.iterdir()))):
            raise ValueError(f"{output} exists and is not an empty folder; {remedy}.")
        _remove_unfinished(place)
        unfinished = Path(tempfile.mkdtemp(prefix=_unfinished(place), dir=place.parent))
        try:
            yield unfinished
            unfinished.chmod(0o755)  # mkdtemp makes it private
            if place.exists():
                place.rename(_old(place))
            unfinished.rename(place)
        finally:
            _settle(place)
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _parents_made(place: Path) -> Iterator[None]:
    """Make the folders above `place`; those that stay empty because the work failed are removed again."""
    absent = [parent for parent in place.parents if not parent.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # not empty, as it should be
            for parent in absent:
                parent.rmdir()


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def _unfinished(place: Path) -> str:
    return f".{short_name(place.name)}-unfinished-"


def _remove_unfinished(place: Path) -> None:
    """Remove what killed processes left; nobody else is at work here, since the lock is ours."""
    for path in place.parent.iterdir():
        if path.name.startswith(_unfinished(place)):
            shutil.rmtree(path, ignore_errors=True)


def _settle(place: Path) -> None:
    """Undo a swap that ended between its two renames, finish one that ended behind them."""
    old = _old(place)
    if not old.is_dir():
        return
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()  # made by hand since; the old folder is the only copy
    if place.exists():
        shutil.rmtree(old)
    else:
        old.rename(place)


# ---- files ----------------------------------------------------------------------------------------------------------


@contextmanager
def opened_whole(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that replaces `path` when the block ends without an error; UTF-8 if it is text.

    What lies there stays until then, and its permissions for good. A link keeps pointing where it does. What is not a
    regular file, such as `/dev/stdout` or a pipe, is written directly.

    Args:
        path: of the file; its folder must exist.
        mode: `"w"` or `"wb"`.

    Raises:
        OSError: if it cannot be written.
    """
    place = Path(os.path.realpath(path))
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    if place.exists() and not place.is_file():
        with place.open(mode, **text) as file:
            yield file
        return
    if place.exists() and not os.access(place, os.W_OK):
        raise PermissionError(13, "Permission denied", str(path))
    part = place.with_name(f".{short_name(place.name)}.part")
    try:
        with part.open(mode, **text) as file:
            yield file
        if place.exists():
            shutil.copymode(place, part)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file, whole or not at all, and return its path."""
    with opened_whole(path, "wb") as file:
        file.write(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file in UTF-8, whole or not at all, and return its path."""
    with opened_whole(path) as file:
        file.write(text)
    return Path(path)


def write_json(path: str | Path, content: Any, *, indent: int | None = 2, sort_keys: bool = False) -> Path:
    """Write a JSON file, whole or not at all, and return its path.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
    """
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name that the file system takes with an ending behind it.

    Args:
        name: of a file, or its stem.
        longest: in bytes. A longer name is cut and gets eight digits of its digest.
    """
    content = os.fsencode(name)
    if len(content) <= longest:
        return name
    return f"{content[: longest - 9].decode('utf-8', 'ignore')}-{sha256(content).hexdigest()[:8]}"


def refuse_inputs(
    outputs: Iterable[str | Path], inputs: Iterable[str | Path], *, inside: bool = False, name: str = "output"
) -> None:
    """Refuse to write over what is read, also by way of links.

    Args:
        outputs: files or folders that would be written.
        inputs: files or folders that are read; URLs and other names that are not there are passed over.
        inside: also refuse an output folder that holds an input.
        name: of the parameter, for the message.

    Raises:
        ValueError: naming both.
    """
    read = {_identity(place): place for place in inputs if os.path.lexists(place)}
    if not read:
        return
    for output in outputs:
        if (found := read.get(_identity(output))) is not None:
            raise ValueError(f"`{name}` {output} is also an input ({found}), which would be lost; choose another.")
        if inside:
            real = Path(os.path.realpath(output))
            for source in read.values():
                if real in Path(os.path.realpath(source)).parents:
                    raise ValueError(
                        f"`{name}` {output} holds an input ({source}), which would be lost; choose another."
                    )


def _identity(place: str | Path) -> tuple[int, int] | str:
    """What is the same for all names of one file, hard links among them."""
    try:
        status = Path(place).stat()
    except (OSError, ValueError):
        return os.path.realpath(place)
    return status.st_dev, status.st_ino


# ---- locks ----------------------------------------------------------------------------------------------------------


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Hold a folder that is filled in place; it is made if needed.

    The kernel drops the lock of a process that dies, so only a process that lives can refuse another.

    Raises:
        OutputInUseError: if another process holds it; the message says which.
        OSError: if the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder / LOCK_FILES[0], folder / LOCK_FILES[1], folder):
        yield


@contextmanager
def lock_beside(path: str | Path) -> Iterator[None]:
    """Hold a file, or a folder that is replaced as a whole, by a lock beside it; as `folder_lock`.

    What is not a regular file, such as a pipe, is not locked.
    """
    place = Path(os.path.realpath(path))
    if place.exists() and not place.is_file() and not place.is_dir():
        yield
        return
    lock = place.with_name(f".{short_name(place.name)}.lock")
    with _held(lock, lock.with_name(f"{lock.name}-owner.json"), Path(path)):
        yield


@contextmanager
def _held(file: Path, note: Path, what: Path) -> Iterator[None]:
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputInUseError(
            f"{what} is being written by {_owner(note)}. Wait until it ends, or choose another place."
        ) from error
    except NotImplementedError:  # some network file systems
        logger.warning("The file system of %s has no locks: let one process at a time write there.", what)
    try:
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": _command_word(),
        }
        write_text(note, json.dumps(owner) + "\n")
        yield
    finally:
        # While it is still ours: a later owner makes new ones.
        note.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        lock.release()


def _owner(note: Path) -> str:
    try:
        fields = json.loads(note.read_text(encoding="utf-8"))
        return "process {pid} on {host} ({command}, since {started})".format(**fields)
    except (OSError, ValueError, KeyError, TypeError):  # not written yet, or gone meanwhile
        return "another process"


def _command_word() -> str:
    """Return the name of the running program and its first plain word, without paths, options or values."""
    program, *words = sys.argv or [""]
    word = words[0] if words and words[0].isidentifier() else ""
    return f"{Path(program).name} {word}".strip() or "python"
