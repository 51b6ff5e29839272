"""Files and folders: reading JSON, writing whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["read_json_object", "written_whole"]


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not JSON, or not an object; the message names the file.
    """
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds a {type(fields).__name__}.")
    return fields


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
        ValueError: if `output` exists and is not an empty folder, or is a file.
    """
    place = Path(output).resolve()
    _settle(place)
    if place.exists() and not (place.is_dir() and (replace or not any(place.iterdir()))):
        raise ValueError(f"{output} exists and is not an empty folder; {remedy}.")
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # mkdtemp makes it private
        if place.exists():
            place.rename(_old(place))
        unfinished.rename(place)
    finally:
        _settle(place)
        shutil.rmtree(unfinished, ignore_errors=True)


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


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
