"""Store a calibration and its operating points with a checkpoint, where `detect` and `pipeline` use them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.utils import CONFIG_NAME

from deepfake_detectors.evaluation.calibrated_rows import KEEP, Calibration, composed, moved_threshold

__all__ = ["CALIBRATION_FILE", "check_target", "checkpoint_folder", "save_calibrated"]

CALIBRATION_FILE = "calibration.json"
# They state numbers of the checkpoint as it was: a card is rendered anew when it is published.
STALE = ("README.md", "results.json", "validation.json")


def checkpoint_folder(source: str) -> Path:
    """The folder of a checkpoint, fetched from the Hub's cache where `source` is an id.

    Raises:
        OSError: if it can be reached neither here nor there.
        ValueError: for a folder without a config, such as LoRA deltas.
    """
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source))
    if not (folder / CONFIG_NAME).is_file():
        raise ValueError(
            f"{folder} holds no {CONFIG_NAME} to store a calibration in. Of a LoRA adapter, merge it first: "
            "deepfake-detectors merge --help"
        )
    return folder


def check_target(source: str | None, target: Path) -> None:
    """Refuse a target before any picture is scored.

    Args:
        source: the model as the user named it; `None` for the default of this package.
        target: where the calibrated checkpoint is to be saved.

    Raises:
        ValueError: unless the target is new, an empty folder, or the model's own folder.
    """
    if target.exists() and not target.is_dir():
        raise ValueError(f"--save-to {target} is a file; name a folder.")
    own = source is not None and Path(source).is_dir() and Path(source).resolve() == target.resolve()
    if target.is_dir() and any(target.iterdir()) and not own:
        raise ValueError(
            f"--save-to {target} exists and is not the folder of the model. Name a new folder, or the model's own to "
            "change it in place."
        )


def save_calibrated(source: str, target: Path, calibration: Calibration, record: Mapping[str, Any]) -> Path:
    """Write the checkpoint with the calibration in its config, and `calibration.json` beside it.

    The calibration is put behind the one that the checkpoint has. Its own operating points are kept, moved so that
    they part the same pictures as before, unless one of the same name was fitted.

    Args:
        source: the checkpoint's folder or Hub id, whose scores were fitted.
        target: a new or empty folder, or the checkpoint's own, of which only the config is then changed.
        calibration: the fit.
        record: what is known of the fit, such as the intervals; goes into `calibration.json`.

    Returns:
        The folder.

    Raises:
        OSError, ValueError: as `checkpoint_folder` and `check_target`.
    """
    folder = checkpoint_folder(source)
    check_target(source, target)
    fields = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(folder)
    named = dict(config.operating_points)
    if calibration.method != KEEP:
        named = {name: moved_threshold(value, calibration.fitted) for name, value in named.items()}
    stored = {
        "calibration": composed(config.calibration, calibration.fitted),
        "operating_points": {**named, **calibration.points.values},
    }
    content = {CONFIG_NAME: {**fields, **stored}, CALIBRATION_FILE: {**stored, "fit": dict(record)}}
    if folder.resolve() == target.resolve():
        # The config last: what it holds is then always explained by the file beside it.
        for name in reversed(content):
            _write(folder / f"{name}.part", content[name]).replace(folder / name)
        return folder
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as workspace:
        part = Path(workspace) / target.name
        # Links of the Hub's cache are followed: the copy stands alone.
        shutil.copytree(folder, part, ignore=shutil.ignore_patterns(*STALE, ".*", "__pycache__", "__init__.py"))
        for name, value in content.items():
            _write(part / name, value)
        if target.is_dir():
            target.rmdir()
        part.replace(target)
    return target


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
