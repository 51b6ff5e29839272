"""`deepfake_detectors.pipeline`: transformers' call, with this package's own pipeline class and its own default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from transformers.utils import CONFIG_NAME

from deepfake_detectors.default_checkpoint import LICENSE_NOTICE, default_checkpoint_path
from deepfake_detectors.modeling.detection import OFFICIAL_SUFFIXES, unconverted_remedy
from deepfake_detectors.modeling.pipeline_deepfake_detection import (
    TASK,
    DeepfakeDetectionPipeline,
    show_license_notice,
)
from deepfake_detectors.registration import FAMILIES

__all__ = ["pipeline", "check_model_source", "resolve_model"]


def pipeline(task: str = TASK, model: Any = None, **kwargs: Any) -> DeepfakeDetectionPipeline:
    """Same as `transformers.pipeline("deepfake-detection", ...)`, but always with the pipeline class of this package.

    The difference shows on folders whose config names a pipeline file of its own: there transformers demands
    `trust_remote_code=True` and runs the folder's copy, although this package is installed.

    Args:
        task: `"deepfake-detection"`, the only task here.
        model: a folder or Hub id of a detector, or a loaded one (then give its `processor` too). The default is the
            small demonstration detector inside this package; it needs no network.
        kwargs: as in `transformers.pipeline`, and the call arguments of `DeepfakeDetectionPipeline`.

    Raises:
        ValueError: for another task, for official files that were never converted (the message has the command),
            for a model that is not a detector, and for arguments out of range.
        OSError: if there is no such model.
    """
    if task != TASK:
        raise ValueError(f"task is {task!r}, but the only task here is {TASK!r}. For a model, write model={task!r}.")
    if model is None or isinstance(model, (str, Path)):
        model = resolve_model(model)
        check_model_source(model)
    return transformers.pipeline(task, model=model, pipeline_class=DeepfakeDetectionPipeline, **kwargs)


def resolve_model(model: str | Path | None) -> str:
    """The folder or Hub id to load: `model` itself, or if it is `None` the default detector, with its terms logged."""
    if model is not None:
        return str(model)
    folder = str(default_checkpoint_path())
    show_license_notice(LICENSE_NOTICE)
    return folder


def check_model_source(model: str | Path) -> None:
    """Refuse what is neither a folder to load nor may be a Hub id.

    Raises:
        ValueError: for an official checkpoint that was never converted (the message has the command), and for a
            folder without a config.
        FileNotFoundError: for a path that does not exist.
    """
    path = Path(model)
    # One slash may be a Hub id; these cannot.
    if not path.exists() and (path.is_absolute() or len(path.parts) > 2 or str(model).startswith((".", "~"))):
        raise FileNotFoundError(f"there is no folder {model}")
    official: list[Path] = []
    if path.is_file():
        official = [path]
    elif path.is_dir() and not any((path / name).exists() for name in (CONFIG_NAME, "adapter_config.json")):
        official = sorted(child for child in path.iterdir() if child.suffix in OFFICIAL_SUFFIXES)
        if not official:
            raise ValueError(f"{path} is not a model folder: it holds no {CONFIG_NAME}.")
    if (path / CONFIG_NAME).is_file():
        fields = _read_config(path / CONFIG_NAME)
        if remedy := unconverted_remedy(fields, path):
            raise ValueError(f"{path} holds a model of type {fields.get('model_type')!r}. {remedy}")
        if "model_type" not in fields:
            official = [path]
    if official:
        sources = " ".join(f"--source {file}" for file in official)
        raise ValueError(
            f"{path} holds official weights, not a folder that can be loaded. Convert them first: "
            f"deepfake-detectors convert FAMILY {sources} --output FOLDER (FAMILY is one of {', '.join(FAMILIES)})"
        )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} holds no JSON object, but {type(fields).__name__}.")
    return fields
