"""Atomic saving of checkpoint folders: a process killed while saving leaves either the old or the new state."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

__all__ = ["finish_saving", "saved_whole"]

STAGE, PLAN = ".saving-", ".plan.json"
DAY = 24 * 60 * 60
# Staging folders that this process is filling.
_own_stages: set[Path] = set()
# Weight files of a whole model; those of an older state must not be mistaken for part of the new one.
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")


@contextmanager
def saved_whole(save_directory: Any) -> Iterator[str]:
    """Yield a folder to save to; its files replace those of `save_directory` if the block ends without an error.

    The files are written to a hidden subfolder and moved one by one once it is complete. The first move decides: if
    the process is killed before it, the save is discarded; if killed after it, `finish_saving` moves the rest. The
    config is moved first, so that readers can tell the two states apart. Nested blocks for the same folder do nothing.
    Several processes of one training run may save to the same folder: each uses its own hidden folder, and removes
    only those of dead processes.

    Args:
        save_directory: created if needed; files that are not saved again are kept, except weights of the old state.
    """
    folder = Path(save_directory)
    if folder.name.startswith(STAGE) or folder.is_file():  # nested in another block, or refused by the writer
        yield str(save_directory)
        return
    folder.mkdir(parents=True, exist_ok=True)
    finish_saving(folder)
    for left in folder.glob(f"{STAGE}*"):
        if _is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=f"{STAGE}{_host()}-{os.getpid()}-", dir=folder))
    _own_stages.add(stage)
    try:
        yield str(stage)
        files = sorted(str(path.relative_to(stage)) for path in stage.rglob("*") if path.is_file())
        files.sort(key=lambda name: name != CONFIG_NAME)
        stale = [] if not any(map(WEIGHTS.fullmatch, files)) else sorted(_weights(folder) - set(files))
        part = stage / f"{PLAN}.part"
        part.write_text(json.dumps({"files": files, "stale": stale}), encoding="utf-8")
        part.replace(stage / PLAN)
        _move(stage, folder, files, stale)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        _own_stages.discard(stage)


def finish_saving(folder: Any) -> None:
    """Finish a save that was killed after it had started to move the new files.

    Args:
        folder: a checkpoint folder; Hub ids and missing folders are ignored.
    """
    folder = Path(str(folder))
    if not folder.is_dir():
        return
    for stage in folder.glob(f"{STAGE}*"):
        try:
            plan = json.loads((stage / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # killed before everything was written, or still being written
            continue
        if plan["files"] and not (stage / plan["files"][0]).exists():
            _move(stage, folder, plan["files"], plan["stale"])
            shutil.rmtree(stage, ignore_errors=True)


def _host() -> str:
    return re.sub(r"\W+", "_", socket.gethostname())


def _is_abandoned(stage: Path) -> bool:
    """Return whether the writing process is dead; on another machine or on Windows, judge by the folder's age."""
    host, _, rest = stage.name.removeprefix(STAGE).rpartition("-")[0].rpartition("-")
    if host != _host() or not rest.isdecimal() or os.name == "nt":
        try:
            return time.time() - stage.stat().st_mtime > DAY
        except OSError:  # removed in the meantime
            return False
    if int(rest) == os.getpid():
        return stage not in _own_stages
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _weights(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if WEIGHTS.fullmatch(path.name)}


def _move(stage: Path, folder: Path, files: list[str], stale: list[str]) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # moved before the kill, or by another process that is finishing this save
            (stage / name).replace(folder / name)
    for name in stale:
        (folder / name).unlink(missing_ok=True)
