"""Resuming a run: find the checkpoint, check that it belongs to this model, and load its weights."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments
from transformers.core_model_loading import revert_weight_conversion
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_SAFE_WEIGHTS_NAME,
    CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
)

from deepfake_detectors.modeling.modeling_antifakeprompt_adapter import ADAPTER_FILE
from deepfake_detectors.train.optimization import WRAPPERS

__all__ = ["LoadsByClass", "checkpoint_to_resume", "require_same_weights"]

logger = logging.getLogger("deepfake_detectors.train")
Shapes = dict[str, tuple[int, ...]]
SHOWN = 4
# PEFT weights whose shape does not depend on their layer, unlike `lora_A` and `lora_B`.
OTHER_LORA = re.compile(r"\.lora_(?![AB]\.)")
# Config fields about the files, not about the model.
OF_THE_FILES = ("dtype", "transformers_version", "_name_or_path", "base_model_name_or_path")


def require_same_weights(folder: Path, model: Any, is_adapter: bool) -> None:
    """Compare a checkpoint with the model to resume, without loading it.

    An adapter that PEFT has not added to `model` yet is compared with its layers.

    Raises:
        ValueError: if names or shapes differ, or for a damaged file; the message lists the differences and settings.
    """
    found = {name: shape for path in _weight_files(folder, is_adapter) for name, shape in _shapes_in(path).items()}
    if not found:  # FSDP and DeepSpeed write their own files
        return
    if is_adapter and not isinstance(model, PeftModel):
        expected, may_lack = _fitting(found, model), set[str]()
    else:
        expected, may_lack = _saved_shapes(model)
    faults = {
        "only in the checkpoint": sorted(set(found) - set(expected)),
        "only in this run": sorted(set(expected) - set(found) - may_lack),
        "with another shape": [
            f"{name} {found[name]} instead of {expected[name]}"
            for name in sorted(set(found) & set(expected))
            if found[name] != expected[name] and 0 not in expected[name]  # with ZeRO-3 the weight itself is empty
        ],
    }
    if not any(faults.values()):
        return
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    settings = _differing_settings(folder, base)
    what = f" with {', '.join(settings)}" if settings else ""
    listing = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in faults.items() if names)
    raise ValueError(
        f"{folder} is a checkpoint of a different {type(base).__name__} than in this run{what}. Weights {listing}. "
        "Resume with the recipe that wrote it."
    )


def _weight_files(folder: Path, is_adapter: bool) -> list[Path]:
    if is_adapter:
        names = [ADAPTER_SAFE_WEIGHTS_NAME]
    elif (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        index = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text(encoding="utf-8"))
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    else:
        names = [SAFE_WEIGHTS_NAME, ADAPTER_FILE]
    return [folder / name for name in names if (folder / name).is_file()]


def _shapes_in(path: Path) -> Shapes:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read, the checkpoint is damaged: {error}") from error


def _saved_shapes(model: Any) -> tuple[Shapes, set[str]]:
    """Return names and shapes in this model's checkpoints, and the names that may be missing."""
    if isinstance(model, PeftModel):
        state = get_peft_model_state_dict(model)
    elif hasattr(model, "soft_words"):
        state = model.soft_words()
    else:
        model = getattr(model, "saved_model", model)
        state = model.state_dict()
    # Tied weights are written only once.
    places = Counter(weight.data_ptr() for weight in state.values())
    shared = {name for name, weight in state.items() if places[weight.data_ptr()] > 1}
    if isinstance(model, PeftModel) or hasattr(model, "soft_words"):
        return {name: tuple(weight.shape) for name, weight in state.items()}, shared
    hollow = {name: torch.empty(weight.shape, device="meta") for name, weight in state.items()}
    on_disk = revert_weight_conversion(model, hollow)
    may_lack = revert_weight_conversion(model, {name: hollow[name] for name in shared})
    return {name: tuple(weight.shape) for name, weight in on_disk.items()}, set(may_lack)


def _fitting(found: Shapes, base: Any) -> Shapes:
    """Return an adapter's weights that have a layer in `base`, with the shape expected by that layer."""
    layers = {name: tuple(weight.shape) for name, weight in base.state_dict().items()}
    expected = {}
    for name, shape in found.items():
        layer = layers.get(WRAPPERS.sub("", name))
        if OTHER_LORA.search(name) or (layer is not None and 0 in layer):
            expected[name] = shape
        elif layer is not None and ".lora_A." in name:
            expected[name] = (shape[0], *layer[1:])
        elif layer is not None and ".lora_B." in name:
            expected[name] = (layer[0], *shape[1:])
        elif layer is not None:
            expected[name] = layer
    return expected


def _differing_settings(folder: Path, base: Any) -> list[str]:
    path = folder / CONFIG_NAME
    if not path.is_file():
        return []
    theirs, ours = json.loads(path.read_text(encoding="utf-8")), base.config.to_dict()
    return [
        f"{name} {theirs[name]!r} instead of {value!r}"
        for name, value in ours.items()
        if name in theirs and name not in OF_THE_FILES and theirs[name] != value and not isinstance(value, dict | list)
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def checkpoint_to_resume(arguments: TrainingArguments, model: Any, adapter: bool = False) -> str | None:
    """Return the checkpoint requested by `resume_from_checkpoint`, or `None`.

    Args:
        arguments: `resume_from_checkpoint` is empty or "false", "true" for the last one in `output_dir`, or a folder.
        model: the model to train, a `PreTrainedModel` or a `PeftModel` around one.
        adapter: whether PEFT will be added to `model`.

    Raises:
        FileNotFoundError: if the folder does not exist, or no checkpoint is found.
        ValueError: if the folder is not a training checkpoint, or belongs to another model: another class or family,
            or weights with other names or shapes.
    """
    wanted = arguments.resume_from_checkpoint
    if wanted is None or str(wanted).lower() == "false":
        return None
    if str(wanted).lower() == "true":
        wanted = _last_whole_checkpoint(Path(arguments.output_dir))
    elif not Path(wanted).is_dir():
        raise FileNotFoundError(f"resume_from_checkpoint is {wanted}, but this folder does not exist.")
    _require_same_model(Path(wanted), model, adapter or isinstance(model, PeftModel))
    return str(wanted)


def _last_whole_checkpoint(output: Path) -> Path:
    """A killed run may have left an incomplete checkpoint; the state file is written last."""
    numbered = {
        int(path.name.rpartition("-")[2]): path
        for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.rpartition("-")[2].isdigit()
    }
    for _, path in sorted(numbered.items(), reverse=True):
        if _is_whole(path):
            return path
        logger.warning("Skipped %s, which is incomplete.", path)
    raise FileNotFoundError(
        f"resume_from_checkpoint is true, but {output} does not contain a "
        f"{'complete ' if numbered else ''}checkpoint-*."
    )


def _is_whole(folder: Path) -> bool:
    path = folder / TRAINER_STATE_NAME
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


def _require_same_model(folder: Path, model: Any, is_adapter: bool) -> None:
    if not _is_whole(folder):
        raise ValueError(
            f"resume_from_checkpoint is {folder}, but it does not contain a complete {TRAINER_STATE_NAME}: it is a "
            "model or an incomplete checkpoint. Use another checkpoint-* folder, or start from a model with "
            "model_name_or_path."
        )
    holds_adapter = (folder / ADAPTER_CONFIG_NAME).is_file()
    if is_adapter != holds_adapter:
        kinds = {True: "an adapter", False: "a complete model"}
        raise ValueError(
            f"{folder} is a checkpoint of {kinds[holds_adapter]}, but this run trains {kinds[is_adapter]}. Resume "
            "with the recipe that wrote it."
        )
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    # A checkpoint of a chat model is a folder of its stock class; an adapter stores the class of its base.
    named = base if holds_adapter else getattr(base, "saved_model", base)
    own = (type(named).__name__, named.config.model_type)
    found = _class_and_family_in(folder, holds_adapter)
    if any(theirs not in (None, ours) for theirs, ours in zip(found, own, strict=True)):
        names = [" of family ".join(filter(None, pair)) for pair in (found, own)]
        raise ValueError(
            f"{folder} is a checkpoint of {names[0]}, but this run trains {names[1]}. Resume with the recipe that "
            "wrote it."
        )
    require_same_weights(folder, model, holds_adapter)


def _class_and_family_in(folder: Path, holds_adapter: bool) -> tuple[str | None, str | None]:
    """Return the class and model_type that a checkpoint was trained as; `None` if unknown."""
    path = folder / CONFIG_NAME
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if holds_adapter:
        mapping = json.loads((folder / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8")).get("auto_mapping") or {}
        return mapping.get("base_model_class"), config.get("model_type")
    return next(iter(config.get("architectures") or []), None), config.get("model_type")


class LoadsByClass:
    """Mixin before a `Trainer`: loads complete models from checkpoints like `from_pretrained`.

    `Trainer` compares the names in the file with those in memory and only warns if they differ. A class that saves
    with other names, as FakeVLM does for stock Llava loaders, would silently keep its current weights, both when
    resuming and when loading the best checkpoint at the end. For adapters, names and shapes are compared before PEFT
    loads them, because PEFT also only warns.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._holds_whole_model(resume_from_checkpoint):
            self._load_whole_model(resume_from_checkpoint)
        else:
            self._require_same_adapter(resume_from_checkpoint)
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]

    def _load_best_model(self) -> None:
        if self._holds_whole_model(self.state.best_model_checkpoint):
            self._load_whole_model(self.state.best_model_checkpoint)
        else:
            self._require_same_adapter(self.state.best_model_checkpoint)
            super()._load_best_model()  # type: ignore[misc]

    def _holds_whole_model(self, folder: str) -> bool:
        # FSDP and DeepSpeed have their own files, with the names in memory.
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return False
        # A LoRA checkpoint of classifier training also has a config, that of its base.
        return (Path(folder) / CONFIG_NAME).is_file() and not (Path(folder) / ADAPTER_CONFIG_NAME).is_file()

    def _require_same_adapter(self, folder: str) -> None:
        model = self.accelerator.unwrap_model(self.model)
        if isinstance(model, PeftModel) and not self.is_fsdp_enabled and not self.is_deepspeed_enabled:
            require_same_weights(Path(folder), model, is_adapter=True)

    def _load_whole_model(self, folder: str) -> None:
        model = self.accelerator.unwrap_model(self.model)
        model.load_state_dict(type(model).from_pretrained(folder).state_dict())
