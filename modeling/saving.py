"""Folders of checkpoints change whole or not at all: a kill while one is saved leaves the old state or the new."""

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
# Stages that this process fills now.
_own_stages: set[Path] = set()
# Weights of a whole model; what an older state has of them must not be taken for part of the new one.
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")


@contextmanager
def saved_whole(save_directory: Any) -> Iterator[str]:
    """Give a folder to save into; its files replace those of `save_directory` when the block ends without an error.

    They are written into a hidden folder inside, which is moved file by file once it is complete. The first move
    decides: of a process that is killed before, nothing counts; after it, `finish_saving` moves the rest. The config
    is moved first, so that whoever reads it sees which of the two it was. Within such a block, another one for its
    folder does nothing. Several processes of one training may save into the same folder: each fills a hidden folder
    of its own, and removes those of dead processes only.

    Args:
        save_directory: created if needed; files there that are not saved anew stay, except weights of the old state.
    """
    folder = Path(save_directory)
    if folder.name.startswith(STAGE) or folder.is_file():  # inside another block; or refused by the one who writes
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
    """Finish what a killed process was saving into a folder, if it had begun to move the new files.

    Args:
        folder: of a checkpoint; Hub ids and missing folders are passed over.
    """
    folder = Path(str(folder))
    if not folder.is_dir():
        return
    for stage in folder.glob(f"{STAGE}*"):
        try:
            plan = json.loads((stage / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # killed before all was written, or being written now
            continue
        if plan["files"] and not (stage / plan["files"][0]).exists():
            _move(stage, folder, plan["files"], plan["stale"])
            shutil.rmtree(stage, ignore_errors=True)


def _host() -> str:
    return re.sub(r"\W+", "_", socket.gethostname())


def _is_abandoned(stage: Path) -> bool:
    """Whether the process that filled it is dead; of one on another machine, or on Windows, its age must tell."""
    host, _, rest = stage.name.removeprefix(STAGE).rpartition("-")[0].rpartition("-")
    if host != _host() or not rest.isdecimal() or os.name == "nt":
        try:
            return time.time() - stage.stat().st_mtime > DAY
        except OSError:  # gone meanwhile
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
        with suppress(FileNotFoundError):  # moved before the kill, or by another process that finishes this
            (stage / name).replace(folder / name)
    for name in stale:
        (folder / name).unlink(missing_ok=True)
