"""Whether a checkpoint holds the very weights that a run trains: names and shapes, from the files' headers alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from deepfake_detectors.modeling.modeling_antifakeprompt_adapter import ADAPTER_FILE
from deepfake_detectors.train.freezing import WRAPPERS

__all__ = ["require_same_weights"]

Shapes = dict[str, tuple[int, ...]]
SHOWN = 4
# PEFT's weights that are not shaped after the layer they belong to, as `lora_A` and `lora_B` are.
OTHER_LORA = re.compile(r"\.lora_(?![AB]\.)")
# What a config says of the files, not of the model.
OF_THE_FILES = ("dtype", "transformers_version", "_name_or_path", "base_model_name_or_path")


def require_same_weights(folder: Path, model: Any, is_adapter: bool) -> None:
    """Compare a checkpoint with the model that will go on from it; nothing is loaded.

    An adapter that PEFT has not put around `model` yet is compared with the layers that it belongs to.

    Raises:
        ValueError: if names or shapes differ, or for a damaged file; the message says in what, and in which settings.
    """
    found = {name: shape for path in _weight_files(folder, is_adapter) for name, shape in _shapes_in(path).items()}
    if not found:  # FSDP and DeepSpeed write files of their own
        return
    if is_adapter and not isinstance(model, PeftModel):
        expected, may_lack = _fitting(found, model), set[str]()
    else:
        expected, may_lack = _saved_shapes(model)
    faults = {
        "only in the checkpoint": sorted(set(found) - set(expected)),
        "only in this run": sorted(set(expected) - set(found) - may_lack),
        "of another shape": [
            f"{name} {found[name]} instead of {expected[name]}"
            for name in sorted(set(found) & set(expected))
            if found[name] != expected[name]
            and 0 not in expected[name]  # ZeRO-3 keeps nothing of a weight in its place
        ],
    }
    if not any(faults.values()):
        return
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    settings = _differing_settings(folder, base)
    what = f" with {', '.join(settings)}" if settings else ""
    listing = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in faults.items() if names)
    raise ValueError(
        f"{folder} is a checkpoint of another {type(base).__name__} than this run trains{what}. Weights {listing}. "
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
    """Names and shapes that this model's checkpoints hold, and the names among them that may be left out."""
    if isinstance(model, PeftModel):
        state = get_peft_model_state_dict(model)
    elif hasattr(model, "soft_words"):
        state = model.soft_words()
    else:
        state = model.state_dict()
    # Of weights that are one and the same, only one is written.
    places = Counter(weight.data_ptr() for weight in state.values())
    shared = {name for name, weight in state.items() if places[weight.data_ptr()] > 1}
    if isinstance(model, PeftModel) or hasattr(model, "soft_words"):
        return {name: tuple(weight.shape) for name, weight in state.items()}, shared
    hollow = {name: torch.empty(weight.shape, device="meta") for name, weight in state.items()}
    on_disk = revert_weight_conversion(model, hollow)
    may_lack = revert_weight_conversion(model, {name: hollow[name] for name in shared})
    return {name: tuple(weight.shape) for name, weight in on_disk.items()}, set(may_lack)


def _fitting(found: Shapes, base: Any) -> Shapes:
    """An adapter's weights that have a layer in `base`, in the shape that this layer asks for."""
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
