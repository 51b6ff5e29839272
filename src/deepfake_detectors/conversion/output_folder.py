"""Folders that are written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["written_whole"]


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
