"""The official LVLM-DFD checkpoint and its language model to a folder that `from_pretrained` loads.

`ckpt.pth` holds ImageBind with loralib LoRA, the heads, and the LoRA of the language model; the language model itself
is the folder of `lmsys/vicuna-7b-v1.5-16k`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from deepfake_detectors.conversion.checkpoint_files import read_tensors
from deepfake_detectors.conversion.imagebind import fold_lora, reshape_imagebind, split_lora
from deepfake_detectors.conversion.key_table import check_complete, rename_keys
from deepfake_detectors.conversion.lvlm_dfd_lora import find_merged, save_adapter
from deepfake_detectors.conversion.lvlm_dfd_tables import (
    CHECKPOINT_TABLE,
    IMAGEBIND,
    LANGUAGE_MODEL,
    LANGUAGE_MODEL_TABLE,
    LLM_PARTS,
    STOCK_TABLE,
    check_groups,
)
from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.modeling.modeling_lvlm_dfd import LvlmDfdForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import GENERATION_DEFAULTS, LvlmDfdForConditionalGeneration
from deepfake_detectors.modeling.processing_lvlm_dfd import LvlmDfdProcessor

__all__ = ["convert_lvlm_dfd"]

logger = logging.getLogger(__name__)

VARIANTS = ("full", "detector")
LORA_CHOICES = ("fold", "adapter")
CTX = "detector.class_texts.ctx"
CTX_SEED = 42  # that of the official script, which draws before it seeds
STOP_WORD = "##"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")


def convert_lvlm_dfd(
    sources: Sequence[Path],
    output: Path,
    *,
    config: dict[str, Any] | None = None,
    variant: str | None = None,
    lora: str = "fold",
    lora_already_merged: bool | None = None,
    llm_lora_alpha: float = 32.0,
) -> None:
    """Write a complete folder with its processor.

    Args:
        sources: `ckpt.pth`, the Vicuna folder, and optionally the public ImageBind file, in any order.
        output: empty or new folder.
        config: `LvlmDfdConfig` fields where they differ from the released ones.
        variant: `"full"` (default) or `"detector"`, verdict and mask without a language model, whose folder is then
            not needed.
        lora: `"fold"` adds all LoRA to the weights; `"adapter"` leaves it in `output/adapter`, a PEFT adapter of the
            whole model.
        lora_already_merged: whether ImageBind's weights already contain its LoRA, as a file saved in evaluation mode
            does. Found by comparison where the public ImageBind file is given, `False` otherwise.
        llm_lora_alpha: of the language model's LoRA; the file does not say it, the official code has 32.

    Raises:
        ValueError: if a required group is missing (named), a file is of an unknown kind, or if any key is missing,
            unexpected or of another shape.
    """
    _check_option("variant", variant or "full", VARIANTS)
    _check_option("lora", lora, LORA_CHOICES)
    checkpoint, stock, base, folder = _read_sources(sources)
    full = variant != "detector"
    check_groups(checkpoint, with_stock=bool(stock), full=full)
    if full and not (base or any(name.endswith("lm_head.weight") for name in checkpoint)):
        raise ValueError(
            "The checkpoint holds no language model: add --source FOLDER of lmsys/vicuna-7b-v1.5-16k, or convert "
            "verdict and mask alone with --variant detector."
        )

    names = rename_keys(checkpoint, CHECKPOINT_TABLE, "The checkpoint")
    tensors, pairs = split_lora({new: checkpoint[old] for old, new in names.items()})
    tensors = {**base, **tensors}
    stock_names = rename_keys(stock, STOCK_TABLE, "The ImageBind file")
    stock = {new: stock[old] for old, new in stock_names.items()}
    if not full:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(LLM_PARTS)}
        pairs = {name: pair for name, pair in pairs.items() if not name.startswith(LLM_PARTS)}
    merged = find_merged(tensors, pairs, stock, lora_already_merged)
    tensors = {**stock, **tensors}
    scales = {
        name: (llm_lora_alpha if name.startswith(LANGUAGE_MODEL) else 1.0) / len(a) for name, (a, _) in pairs.items()
    }
    for name, pair in pairs.items():
        already = merged and name.startswith(IMAGEBIND)
        if lora == "fold" and not already:
            fold_lora(tensors, name, pair, scales[name])
        elif lora == "adapter" and already:
            fold_lora(tensors, name, pair, -scales[name])
    tensors = reshape_imagebind(tensors, IMAGEBIND)

    tokenizer = _read_tokenizer(folder) if full else None
    settings = _settings(config or {}, folder, tokenizer)
    if CTX not in tensors:
        tensors[CTX] = _missing_ctx(settings)
    model_class = LvlmDfdForConditionalGeneration if full else LvlmDfdForDeepfakeDetection
    with torch.device("meta"):
        model = model_class(settings)
    check_complete(tensors, model.state_dict(), "The checkpoint")
    model.load_state_dict(tensors, strict=True, assign=True)
    _save(model, tokenizer, output)
    if lora == "adapter":
        save_adapter(pairs, scales, output / "adapter")


def _check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, allowed are {', '.join(map(repr, allowed))}.")


def _read_sources(
    sources: Sequence[Path],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor], Path | None]:
    """Checkpoint and public ImageBind file by their official names, language model by ours, and its folder."""
    checkpoint: dict[str, torch.Tensor] = {}
    stock: dict[str, torch.Tensor] = {}
    base: dict[str, torch.Tensor] = {}
    folders = [path for path in sources if path.is_dir()]
    if len(folders) > 1:
        raise ValueError(f"One folder (the language model) is expected, got {', '.join(map(str, folders))}.")
    for path in (path for path in sources if not path.is_dir()):
        tensors = read_tensors(path, inside=("state_dict", "model", "module"))
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
        if any(key.startswith(("modality_trunks.", "modality_heads.")) for key in tensors):
            stock |= tensors
        elif any(key.startswith(("visual_encoder.", "image_decoder.", "locator.")) for key in tensors):
            checkpoint |= tensors
        else:
            raise ValueError(
                f"{path} is neither an LVLM-DFD checkpoint (visual_encoder.*, locator.*) nor the public ImageBind "
                f"file (modality_trunks.*); it holds {', '.join(sorted(tensors)[:4])}, ..."
            )
    if not checkpoint:
        raise ValueError("There is no LVLM-DFD checkpoint (ckpt.pth) among the sources.")
    for folder in folders:
        files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
        for path in files:
            tensors = read_tensors(path)
            names = rename_keys(tensors, LANGUAGE_MODEL_TABLE, f"The language model {path.name}")
            base |= {new: tensors[old] for old, new in names.items()}
    return checkpoint, stock, base, folders[0] if folders else None


def _read_tokenizer(folder: Path | None) -> PreTrainedTokenizerBase:
    if folder is None or not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise ValueError(
            f"No tokenizer ({', '.join(TOKENIZER_FILES)}) among the sources: add --source FOLDER of the language "
            "model."
        )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token  # as the official code does
    return tokenizer


def _settings(fields: dict[str, Any], folder: Path | None, tokenizer: PreTrainedTokenizerBase | None) -> LvlmDfdConfig:
    if tokenizer is None:
        return LvlmDfdConfig(**{**fields, "text_config": None})
    fields = dict(fields)
    if "text_config" not in fields:
        fields["text_config"] = AutoConfig.from_pretrained(folder)
    if "stop_token_id" not in fields:
        stop = tokenizer.convert_tokens_to_ids(STOP_WORD)
        if stop == tokenizer.unk_token_id:
            raise ValueError(
                f"The tokenizer does not know {STOP_WORD!r}, at which the official code stops; is it the language "
                "model's? Say stop_token_id in --config otherwise."
            )
        fields["stop_token_id"] = stop
    return LvlmDfdConfig(**fields)


def _missing_ctx(config: LvlmDfdConfig) -> torch.Tensor:
    if config.ctx_missing == "error":
        raise ValueError("The checkpoint holds no ctx (learned context vectors), and ctx_missing is 'error'.")
    shape = (config.num_ctx_tokens, config.imagebind_config.projection_dim)
    logger.warning(
        "The checkpoint holds no ctx (the official code never saves it): it becomes %s. See ctx_missing.",
        config.ctx_missing,
    )
    if config.ctx_missing == "zeros":
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed(CTX_SEED)
    return config.initializer_range * torch.randn(shape, generator=generator)


def _save(model: Any, tokenizer: PreTrainedTokenizerBase | None, output: Path) -> None:
    size = model.config.image_size
    image_processor = LvlmDfdImageProcessor(size={"height": size, "width": size})
    if tokenizer is None:
        model.save_pretrained(output)
        VerdictProcessor(image_processor).save_pretrained(output)
        return
    model.generation_config = GenerationConfig(
        do_sample=GENERATION_DEFAULTS["do_sample"],
        max_new_tokens=GENERATION_DEFAULTS["max_new_tokens"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    model.save_pretrained(output)
    LvlmDfdProcessor(image_processor, tokenizer, stop_token_id=model.config.stop_token_id).save_pretrained(output)
