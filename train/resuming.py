"""Which checkpoint a run goes on from, and whether it belongs to this run's model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

__all__ = ["checkpoint_to_resume"]

STATE_NAME = "trainer_state.json"


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
        last = get_last_checkpoint(arguments.output_dir) if Path(arguments.output_dir).is_dir() else None
        if last is None:
            raise FileNotFoundError(
                f"resume_from_checkpoint is true, but {arguments.output_dir} holds no checkpoint-*."
            )
        wanted = last
    elif not Path(wanted).is_dir():
        raise FileNotFoundError(f"resume_from_checkpoint is {wanted}, but there is no such folder.")
    _require_same_model(Path(wanted), model)
    return str(wanted)


def _require_same_model(folder: Path, model: Any) -> None:
    if not (folder / STATE_NAME).is_file():
        raise ValueError(
            f"resume_from_checkpoint is {folder}, but it holds no {STATE_NAME}: it is a model, not a checkpoint of a "
            "running training. Give one of the checkpoint-* folders, or start from it with model_name_or_path."
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
