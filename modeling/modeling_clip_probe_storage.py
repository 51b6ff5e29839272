"""Files of a probe: the encoder's linear layers as int8 with one scale per output channel, and a small file of heads.

The tensor layout is that of compressed-tensors. Loading is a single multiplication, so it is done here: the library
takes 1.6 CPU seconds instead of 0.3, needs four more packages, and has to be called differently in each supported
release of transformers.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, logging

from .detection import HUB_ARGUMENTS

__all__ = [
    "ENCODER_FILE",
    "HEADS_FILE",
    "dequantize",
    "quantize_exactly",
    "read_stored_weights",
    "write_stored_weights",
]

logger = logging.get_logger(__name__)

ENCODER_FILE = "encoder.safetensors"
HEADS_FILE = "heads.safetensors"
HEADS_PREFIX = "heads."
SCALE_SUFFIX = "_scale"
LARGEST = 127


def dequantize(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Multiply `(out, in)` int8 by `(out, 1)` float32 scales; return `(out, in)` float32."""
    return values.float() * scale


def quantize_exactly(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return int8 values and scales whose product equals `weight` to the last bit, or `None` if there are none.

    Args:
        weight: `(out, in)` float32.

    Returns:
        `(out, in)` int8 and `(out, 1)` float32.
    """
    near = (weight.abs().amax(dim=1, keepdim=True) / LARGEST).where(weight.any(dim=1, keepdim=True), 1.0)
    # The division rounds: the original scale is at most one float away.
    candidates = (near, near.nextafter(torch.zeros(())), near.nextafter(torch.full((), torch.inf)))
    found = torch.zeros_like(near)
    for scale in candidates:
        exact = (torch.round(weight / scale) * scale == weight).all(dim=1, keepdim=True)
        found = torch.where((found == 0) & exact, scale, found)
    if (found == 0).any():
        return None
    return torch.round(weight / found).to(torch.int8), found


def read_stored_weights(
    config_class: Any, source: Any, kwargs: dict[str, Any]
) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]] | None:
    """Read config and weights of a checkpoint with an int8 encoder; return `None` for other checkpoints.

    Args:
        config_class: config class of the family.
        source: the folder or Hub id passed to `from_pretrained`.
        kwargs: its other arguments; for an int8 checkpoint, config fields and the arguments that locate it are taken
            out.

    Raises:
        ValueError: for an index that points outside the checkpoint, or int8 values without a scale.
        OSError: for a missing file.
    """
    hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    config = kwargs.get("config")
    fields: list[str] = []
    if not isinstance(config, PreTrainedConfig):
        fields = [name for name in kwargs if name in config_class.__annotations__]
        config = config_class.from_pretrained(
            source if config is None else config, **hub_kwargs, **{name: kwargs[name] for name in fields}
        )
    if config.encoder_storage != "int8":
        return None
    for name in (*fields, *hub_kwargs):
        kwargs.pop(name)
    tensors: dict[str, torch.Tensor] = {}
    for name in _file_names(source, hub_kwargs):
        tensors |= load_file(str(cached_file(source, name, **hub_kwargs)))
    scales = {
        name.removesuffix(SCALE_SUFFIX): tensors.pop(name) for name in list(tensors) if name.endswith(SCALE_SUFFIX)
    }
    stored = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8}
    if stored != set(scales):
        raise ValueError(
            f"{source} is damaged: {', '.join(sorted(stored ^ set(scales))[:8])} has either int8 values without a "
            "scale or a scale without values."
        )
    # Float tensors are copied as well: a single tensor that refers to the file keeps the whole file in memory.
    for name, tensor in tensors.items():
        tensors[name] = dequantize(tensor, scales[name]) if name in scales else tensor.clone()
    return config, tensors


def _file_names(source: Any, hub_kwargs: dict[str, Any]) -> list[str]:
    index = cached_file(source, SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False, **hub_kwargs)
    if index is None:
        return [SAFE_WEIGHTS_NAME]
    content = json.loads(Path(index).read_text(encoding="utf-8"))
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{index} does not have a `weight_map` from tensor names to file names.")
    outside = [name for name in names.values() if Path(name).name != name]
    if outside:
        raise ValueError(f"{index} refers to {outside[0]!r}, which is not a file inside the checkpoint.")
    return sorted(set(names.values()))


def write_stored_weights(
    model: Any, folder: str | os.PathLike, save: Callable[..., None], kwargs: dict[str, Any]
) -> bool:
    """Save a model as int8 if its config says so and it is lossless; return whether it was saved.

    Args:
        model: the probe.
        folder: folder to write.
        save: `save_pretrained` of the base class.
        kwargs: its arguments.
    """
    if model.config.encoder_storage != "int8" or getattr(model, "_hf_peft_config_loaded", False):
        return False
    weights = model.state_dict() if kwargs.get("state_dict") is None else kwargs["state_dict"]
    encoder = _quantized({name: weight for name, weight in weights.items() if not name.startswith(HEADS_PREFIX)})
    if encoder is None:
        logger.warning("The encoder no longer equals its int8 weights, so it is saved as floats.")
        model.config.encoder_storage = "float"
        return False
    heads = {name: weight for name, weight in weights.items() if name.startswith(HEADS_PREFIX)}
    save(folder, **{**kwargs, "state_dict": dict(heads), "max_shard_size": "50GB"})
    path = Path(folder)
    (path / SAFE_WEIGHTS_NAME).replace(path / HEADS_FILE)
    save_file(encoder, path / ENCODER_FILE, metadata={"format": "pt"})
    files = dict.fromkeys(encoder, ENCODER_FILE) | dict.fromkeys(heads, HEADS_FILE)
    total = sum(tensor.nbytes for tensor in (*encoder.values(), *heads.values()))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    (path / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return True


def _quantized(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """Return the tensors to store, or `None` if a linear layer is not a product of int8 values and scales."""
    stored = {}
    for name, weight in weights.items():
        weight = weight.detach().cpu().contiguous()
        # The position table has rows instead of output channels.
        if weight.ndim != 2 or "embedding" in name:
            stored[name] = weight
            continue
        if weight.dtype != torch.float32 or (parts := quantize_exactly(weight)) is None:
            return None
        stored[name], stored[f"{name}{SCALE_SUFFIX}"] = parts
    return stored
