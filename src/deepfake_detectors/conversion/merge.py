"""Merge trained deltas into their base: LoRA adapters and separately saved modules, identified by content."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor, PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

from deepfake_detectors.conversion.checkpoint_files import new_checkpoint, read_tensors
from deepfake_detectors.conversion.key_table import rename_keys
from deepfake_detectors.conversion.m2f2_det import language_model_key_table
from deepfake_detectors.files import read_json_object
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.model_folders import check_model_folder, model_faults
from deepfake_detectors.modeling.modeling_antifakeprompt_adapter import ADAPTER_FILE
from deepfake_detectors.outputs import refuse_inputs
from deepfake_detectors.pipelines import resolve_model

__all__ = ["merge"]

WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pth")
NOT_WEIGHTS = {"training_args.bin", "optimizer.bin", "scheduler.bin"}
# Prefixes and infixes that PEFT and the official trainers add to names.
WRAPPERS = re.compile(r"^(base_model\.model\.)+|^module\.|\.modules_to_save(\.\w+)?|\.original_module")
LORA_KEY = re.compile(r"(.+)\.lora_([AB])(?:\.\w+)?\.weight")
UNSUPPORTED = {"use_dora": False, "use_rslora": False, "bias": "none", "fan_in_fan_out": False}


def merge(
    model: str | Path, deltas: str | Path | Sequence[str | Path], output: str | Path, *, overwrite: bool = False
) -> Path:
    """Merge deltas into a base in the given order and save the result as a complete folder.

    Args:
        model: folder, Hub id or built-in name of the base, in this package's format.
        deltas: one or more weight files or folders of weight files. LoRA pairs are added as
            `alpha / r * B @ A` (the folder then needs its `adapter_config.json`, including alpha patterns); every
            other tensor replaces that of the base. Names can be ours or, for M2F2-Det, the official ones. For learned
            words of AntifakePrompt, pass only their adapter folder, with an InstructBLIP as the base.
        output: new or empty folder; written completely or not at all.
        overwrite: replace the checkpoint in `output`, which can be the base; see `convert`.

    Returns:
        `output`.

    Raises:
        ValueError: if a delta is empty, has a tensor that the base does not have or with the wrong shape, an
            incomplete LoRA pair, or an adapter that is not plain LoRA. The message lists the names.
    """
    paths = [Path(delta) for delta in ([deltas] if isinstance(deltas, (str, Path)) else deltas)]
    if not paths:
        raise ValueError("There is nothing to merge: pass at least one delta.")
    words = any((path / ADAPTER_FILE).is_file() for path in paths)
    if words and len(paths) > 1:
        raise ValueError(f"Learned words replace each other: pass one adapter folder, not {len(paths)}.")
    refuse_inputs([output], paths, inside=True)
    model = resolve_model(model)
    for path in (model, *paths):
        check_model_folder(path)
    with new_checkpoint(output, overwrite) as folder, model_faults(model):
        if words:
            _save_with_words(model, paths[0], folder)
        else:
            checkpoint = open_checkpoint(model)
            base = checkpoint.load_model()
            for path in paths:
                _apply(base, path)
            if hasattr(base.config, "trained"):
                base.config.trained = True
            base.save_pretrained(folder)
            checkpoint.load_processor().save_pretrained(folder)
    return Path(output)


def _save_with_words(model: str | Path, words: Path, folder: Path) -> None:
    """Save the adapter with the given base, which can differ from the one in its config."""
    with tempfile.TemporaryDirectory() as copied:
        adapter = Path(shutil.copytree(words, copied, dirs_exist_ok=True, ignore=_not_adapter))
        config = adapter / CONFIG_NAME
        fields = {**read_json_object(config), "base_model_name_or_path": str(model)}
        config.write_text(json.dumps(fields), encoding="utf-8")
        AutoModel.from_pretrained(adapter, trust_remote_code=False).save_pretrained(folder)
        AutoProcessor.from_pretrained(adapter, trust_remote_code=False).save_pretrained(folder)


def _not_adapter(_: str, names: list[str]) -> list[str]:
    """Checkpoints and logs from training in the same folder."""
    return [name for name in names if Path(name).suffix not in (".json", ".safetensors")]


@torch.no_grad()
def _apply(model: PreTrainedModel, delta: Path) -> None:
    tensors = _read_delta(delta)
    weights = dict(model.state_dict(keep_vars=True))
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    whole: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        match = LORA_KEY.fullmatch(key)
        if match is None:
            whole[key] = tensor
        else:
            pairs.setdefault(f"{match[1]}.weight", {})[match[2]] = tensor
    halves = [name for name, pair in pairs.items() if len(pair) < 2]
    if halves:
        raise ValueError(f"{delta} has only half of a LoRA pair for {', '.join(halves[:8])}.")
    rename = _renamer(model, [*pairs, *whole], weights, delta)
    alphas = _lora_alphas(delta, [name.removesuffix(".weight") for name in pairs])
    for (name, pair), alpha in zip(pairs.items(), alphas, strict=True):
        change = alpha / len(pair["A"]) * (pair["B"].float() @ pair["A"].float())
        _add_or_replace(weights, rename(name), change, delta, add=True)
    for name, tensor in whole.items():
        _add_or_replace(weights, rename(name), tensor, delta, add=False)


def _read_delta(delta: Path) -> dict[str, torch.Tensor]:
    files = [delta]
    if delta.is_dir():
        files = sorted(f for pattern in WEIGHT_PATTERNS for f in delta.glob(pattern) if f.name not in NOT_WEIGHTS)
        if not files:
            raise ValueError(f"{delta} does not contain weights ({', '.join(WEIGHT_PATTERNS)}).")
    tensors: dict[str, torch.Tensor] = {}
    for path in files:
        for key, tensor in read_tensors(path).items():
            tensors[WRAPPERS.sub("", key)] = tensor
    return tensors


def _lora_alphas(delta: Path, modules: Sequence[str]) -> list[float]:
    """Return the alpha of each adapted module."""
    from peft.utils.other import get_pattern_key

    if not modules:
        return []
    path = (delta if delta.is_dir() else delta.parent) / ADAPTER_CONFIG_NAME
    if not path.exists():
        raise ValueError(f"{delta} has LoRA pairs, but {path} with their rank and alpha is missing.")
    config = read_json_object(path)
    for name, plain in UNSUPPORTED.items():
        if config.get(name, plain) != plain:
            raise ValueError(
                f"{path} has {name}={config[name]!r}; merge only supports plain LoRA ({name}={plain!r}). "
                "Use PEFT's merge_and_unload for this adapter."
            )
    patterns = config.get("alpha_pattern") or {}
    return [patterns.get(get_pattern_key(list(patterns), module), config["lora_alpha"]) for module in modules]


def _renamer(
    model: PreTrainedModel, names: Sequence[str], weights: Mapping[str, torch.Tensor], delta: Path
) -> Callable[[str], str]:
    unknown = [name for name in names if name not in weights]
    if not unknown:
        return lambda name: name
    if model.config.model_type != "m2f2_det":
        raise ValueError(f"{delta} has tensors that the base does not have: {', '.join(unknown[:8])}.")
    renamed = rename_keys(names, language_model_key_table(names), str(delta))
    return renamed.__getitem__


def _add_or_replace(
    weights: Mapping[str, torch.Tensor], name: str, tensor: torch.Tensor, delta: Path, *, add: bool
) -> None:
    if name not in weights or weights[name].shape != tensor.shape:
        found = tuple(weights[name].shape) if name in weights else "absent"
        raise ValueError(f"{delta}: {name} has shape {tuple(tensor.shape)}, but in the base it is {found}.")
    weight = weights[name]
    weight.copy_(weight.float() + tensor if add else tensor)
