"""Output files and folders: written atomically, never over an input, by one process at a time."""

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

# A lock inside a folder, and its owner; both are removed on release.
LOCK_FILES = (".lock", ".lock-owner.json")
LONGEST_NAME = 200  # bytes; file systems allow 255, including suffixes and hidden copies


class OutputInUseError(ValueError):
    """Raised where another process is writing to the same output."""


# ---- folders --------------------------------------------------------------------------------------------------------


@contextmanager
def written_whole(
    output: str | Path, *, replace: bool = False, remedy: str = "choose another `output`"
) -> Iterator[Path]:
    """Yield a folder to write to; it becomes `output` if the block ends without an error.

    The folder is built next to `output`. A replaced folder is renamed to `.<name>.old` before the new one takes its
    place. If a process is killed in between, the next call for the same `output` restores the old one.

    Args:
        output: a new or empty folder; with `replace` also one with files.
        replace: replace the whole content of `output`.
        remedy: advice for the message if `output` is in use.

    Raises:
        ValueError: if `output` exists and is not an empty folder, or is a file; or if another process is writing it.
        OSError: if the location is not writable.
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
            unfinished.chmod(0o755)  # mkdtemp creates it as private
            if place.exists():
                place.rename(_old(place))
            unfinished.rename(place)
        finally:
            _settle(place)
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _parents_made(place: Path) -> Iterator[None]:
    """Create the parent folders of `place`; if the work fails, empty ones are removed again."""
    absent = [parent for parent in place.parents if not parent.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # not empty, as expected
            for parent in absent:
                parent.rmdir()


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def _unfinished(place: Path) -> str:
    return f".{short_name(place.name)}-unfinished-"


def _remove_unfinished(place: Path) -> None:
    """Remove files left by killed processes, which is safe while holding the lock."""
    for path in place.parent.iterdir():
        if path.name.startswith(_unfinished(place)):
            shutil.rmtree(path, ignore_errors=True)


def _settle(place: Path) -> None:
    """Undo a swap interrupted between its two renames, or finish one interrupted after them."""
    old = _old(place)
    if not old.is_dir():
        return
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()  # created manually since then; the old folder is the only copy
    if place.exists():
        shutil.rmtree(old)
    else:
        old.rename(place)


# ---- files ----------------------------------------------------------------------------------------------------------


@contextmanager
def opened_whole(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that replaces `path` if the block ends without an error; text is UTF-8.

    An existing file is kept until then, and its permissions are preserved. Links are not replaced. If `path` is not a
    regular file, such as `/dev/stdout` or a pipe, it is written directly.

    Args:
        path: path of the file; its folder must exist.
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
    """Write a file atomically and return its path."""
    with opened_whole(path, "wb") as file:
        file.write(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write a UTF-8 text file atomically and return its path."""
    with opened_whole(path) as file:
        file.write(text)
    return Path(path)


def write_json(path: str | Path, content: Any, *, indent: int | None = 2, sort_keys: bool = False) -> Path:
    """Write a JSON file atomically and return its path.

    Raises:
        ValueError: for NaN and infinity, which JSON does not support.
    """
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name short enough for the file system, even with a suffix.

    Args:
        name: name of a file, or its stem.
        longest: limit in bytes. A longer name is cut and gets eight digits of its digest.
    """
    content = os.fsencode(name)
    if len(content) <= longest:
        return name
    return f"{content[: longest - 9].decode('utf-8', 'ignore')}-{sha256(content).hexdigest()[:8]}"


def refuse_inputs(
    outputs: Iterable[str | Path], inputs: Iterable[str | Path], *, inside: bool = False, name: str = "output"
) -> None:
    """Refuse to overwrite an input, including through links.

    Args:
        outputs: files or folders to write.
        inputs: files or folders to read; URLs and names that do not exist are ignored.
        inside: also refuse an output folder that contains an input.
        name: name of the parameter, for the message.

    Raises:
        ValueError: with both names.
    """
    read = {_identity(place): place for place in inputs if os.path.lexists(place)}
    if not read:
        return
    for output in outputs:
        if (found := read.get(_identity(output))) is not None:
            raise ValueError(
                f"`{name}` {output} is also an input ({found}), which would be overwritten; choose another."
            )
        if inside:
            real = Path(os.path.realpath(output))
            for source in read.values():
                if real in Path(os.path.realpath(source)).parents:
                    raise ValueError(
                        f"`{name}` {output} contains an input ({source}), which would be overwritten; choose another."
                    )


def _identity(place: str | Path) -> tuple[int, int] | str:
    """Return the identity of a file, which is the same for all of its names, including hard links."""
    try:
        status = Path(place).stat()
    except (OSError, ValueError):
        return os.path.realpath(place)
    return status.st_dev, status.st_ino


# ---- locks ----------------------------------------------------------------------------------------------------------


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Lock a folder that is filled in place; it is created if needed.

    The kernel releases the lock of a process that dies, so only a running process can block another.

    Raises:
        OutputInUseError: if another process holds the lock; the message names it.
        OSError: if the folder is not writable.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder / LOCK_FILES[0], folder / LOCK_FILES[1], folder):
        yield


@contextmanager
def lock_beside(path: str | Path) -> Iterator[None]:
    """Lock a file, or a folder that is replaced as a whole, with a lock next to it; as `folder_lock`.

    Pipes and other special files are not locked.
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
            f"{what} is being written by {_owner(note)}. Wait until it is finished, or choose another location."
        ) from error
    except NotImplementedError:  # some network file systems
        logger.warning(
            "The file system of %s does not support locks: make sure that only one process writes there.", what
        )
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
        # Removed while the lock is still held: a later owner creates new files.
        note.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        lock.release()


def _owner(note: Path) -> str:
    try:
        fields = json.loads(note.read_text(encoding="utf-8"))
        return "process {pid} on {host} ({command}, since {started})".format(**fields)
    except (OSError, ValueError, KeyError, TypeError):  # not written yet, or already removed
        return "another process"


def _command_word() -> str:
    """Return the name of the running program and its sub-command, without paths, options or values."""
    program, *words = sys.argv or [""]
    word = words[0] if words and words[0].isidentifier() else ""
    return f"{Path(program).name} {word}".strip() or "python"
