"""Which checkpoint a run goes on from, and whether it belongs to this run's model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

__all__ = ["checkpoint_to_resume"]

logger = logging.getLogger("deepfake_detectors.train")


def checkpoint_to_resume(arguments: TrainingArguments, model: Any) -> str | None:
    """The checkpoint that `resume_from_checkpoint` asks for, or `None`.

    Args:
        arguments: `resume_from_checkpoint` is empty or "false", "true" for the last one in `output_dir`, or a folder.
        model: what will be trained, a `PreTrainedModel` or a `PeftModel` around one.

    Raises:
        FileNotFoundError: if there is no such folder, or none to find.
        ValueError: if the folder is no checkpoint of a training, or one of another model.
    """
    wanted = arguments.resume_from_checkpoint
    if wanted is None or str(wanted).lower() == "false":
        return None
    if str(wanted).lower() == "true":
        wanted = _last_whole_checkpoint(Path(arguments.output_dir))
    elif not Path(wanted).is_dir():
        raise FileNotFoundError(f"resume_from_checkpoint is {wanted}, but there is no such folder.")
    _require_same_model(Path(wanted), model)
    return str(wanted)


def _last_whole_checkpoint(output: Path) -> Path:
    """A run that was killed may have been writing a checkpoint; its state file comes last."""
    numbered = {
        int(path.name.rpartition("-")[2]): path
        for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.rpartition("-")[2].isdigit()
    }
    for _, path in sorted(numbered.items(), reverse=True):
        if _is_whole(path):
            return path
        logger.warning("Skipped %s: it was not written to its end.", path)
    raise FileNotFoundError(
        f"resume_from_checkpoint is true, but {output} holds no {'whole ' if numbered else ''}checkpoint-*."
    )


def _is_whole(folder: Path) -> bool:
    path = folder / TRAINER_STATE_NAME
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


def _require_same_model(folder: Path, model: Any) -> None:
    if not _is_whole(folder):
        raise ValueError(
            f"resume_from_checkpoint is {folder}, but it holds no whole {TRAINER_STATE_NAME}: it is a model, or a "
            "checkpoint that was not written to its end. Give another of the checkpoint-* folders, or start from a "
            "model with model_name_or_path."
        )
    is_adapter = isinstance(model, PeftModel)
    holds_adapter = (folder / ADAPTER_CONFIG_NAME).is_file()
    if is_adapter != holds_adapter:
        kinds = {True: "an adapter", False: "a whole model"}
        raise ValueError(
            f"{folder} is a checkpoint of {kinds[holds_adapter]}, but this run trains {kinds[is_adapter]}. Resume "
            "with the recipe that wrote it."
        )
    base = model.get_base_model() if is_adapter else model
    found = _class_in(folder, holds_adapter)
    if found is not None and found != type(base).__name__:
        raise ValueError(
            f"{folder} is a checkpoint of {found}, but this run trains {type(base).__name__} "
            f"({base.config.model_type}). Resume with the recipe that wrote it."
        )


def _class_in(folder: Path, holds_adapter: bool) -> str | None:
    """Name of the class a checkpoint was trained as; `None` where it does not say."""
    if holds_adapter:
        mapping = json.loads((folder / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8")).get("auto_mapping") or {}
        return mapping.get("base_model_class")
    path = folder / CONFIG_NAME
    architectures = json.loads(path.read_text(encoding="utf-8")).get("architectures") if path.is_file() else None
    return architectures[0] if architectures else None
