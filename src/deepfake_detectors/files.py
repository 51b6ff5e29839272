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
def written_whole(output: str | Path, option: str = "--output") -> Iterator[Path]:
    """Gives a folder to write into; it becomes `output` when the block ends without an error.

    Args:
        output: a new or empty folder.
        option: how the command line calls it.

    Raises:
        ValueError: if `output` exists and is not an empty folder.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists and is not an empty folder; choose another {option}.")
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.absolute().parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # mkdtemp makes it private
        unfinished.replace(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
