"""Convert the official LVLM-DFD checkpoint and its language model to a folder.

`ckpt.pth` contains ImageBind with loralib LoRA, the heads, and the LoRA of the language model; the language model
itself is the folder of `lmsys/vicuna-7b-v1.5-16k`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from deepfake_detectors.conversion.checkpoint_files import TOKENIZER_FILES, has_tokenizer, read_tensors
from deepfake_detectors.conversion.imagebind import (
    ENCODER_PREFIX,
    IMAGEBIND_TABLE,
    fold_lora,
    reshape_imagebind,
    split_lora,
)
from deepfake_detectors.conversion.key_table import KeyTable, check_complete, rename_keys
from deepfake_detectors.files import weight_files
from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.modeling.modeling_lvlm_dfd import LvlmDfdForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import GENERATION_DEFAULTS, LvlmDfdForConditionalGeneration
from deepfake_detectors.modeling.processing_lvlm_dfd import LvlmDfdProcessor

__all__ = ["CHECKPOINT_TABLE", "IMAGEBIND", "convert_lvlm_dfd"]

logger = logging.getLogger(__name__)

VARIANTS = ("full", "detector")
LORA_CHOICES = ("fold", "adapter")
CTX = "detector.class_texts.ctx"
CTX_SEED = 42  # the deviation of the official script, which draws before seeding
STOP_WORD = "##"
# Relative tolerance for a weight to equal the public one; bfloat16 rounds to 1/256.
SAME = 1 / 128

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]

IMAGEBIND = "detector.imagebind."
LANGUAGE_MODEL = "language_model."
LLM_PARTS = (LANGUAGE_MODEL, "prompt_learner.", "image_projection.")
PEFT_PREFIX = r"llama_model\.base_model\.model\."
NUMBER = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"


def _with_prefix(old: str, new: str, table: KeyTable) -> KeyTable:
    return [(old + pattern, target if target is None else f"{new}{target}") for pattern, target in table]


STOCK_TABLE: KeyTable = _with_prefix("", IMAGEBIND, IMAGEBIND_TABLE)
LANGUAGE_MODEL_TABLE: KeyTable = [
    (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", None),
    (r"(model\.(?:embed_tokens|layers|norm)\..+|lm_head\.weight)", rf"{LANGUAGE_MODEL}\1"),
]
CHECKPOINT_TABLE: KeyTable = [
    *_with_prefix(re.escape(ENCODER_PREFIX), IMAGEBIND, IMAGEBIND_TABLE),
    (r"(image_decoder\.fc\.\d+\.(?:weight|bias))", r"detector.\1"),
    (rf"(locator\.(?:conv|batchnorm)\.\d+\.{NUMBER}|locator\.finalconv\.(?:weight|bias))", r"detector.\1"),
    (rf"(classifier\.meta_net\.\d+\.\d+\.{NUMBER}|classifier\.fc[12]\.(?:weight|bias))", r"detector.\1"),
    (r"ctx", "detector.class_texts.ctx"),
    (rf"(prompt_learner\.meta_net[12]\.\d+\.{NUMBER})", r"\1"),
    (r"(prompt_learner\.(?:base_prompts|(?:fc|finalconv)\.(?:weight|bias)))", r"\1"),
    (r"llama_proj\.(weight|bias)", r"image_projection.\1"),
    (rf"{PEFT_PREFIX}model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", None),
    (rf"{PEFT_PREFIX}(.+)\.lora_([AB])\.default\.weight", rf"{LANGUAGE_MODEL}\1.lora_\2"),
    # Newer PEFT stores the wrapped layer's own weight one level deeper.
    (rf"{PEFT_PREFIX}(.+_proj)\.(?:base_layer\.)?weight", rf"{LANGUAGE_MODEL}\1.weight"),
    (rf"{PEFT_PREFIX}(model\.(?:embed_tokens|norm|layers\.\d+\.\w+)\.weight|lm_head\.weight)", rf"{LANGUAGE_MODEL}\1"),
]

# Parts required for every conversion: readable name, and pattern of at least one key.
ENCODER_GROUPS = {
    f"ImageBind {part} of {trunk} ({ENCODER_PREFIX}modality_{part}.{trunk}.*)": (
        rf"{re.escape(ENCODER_PREFIX)}modality_{part}\.{trunk}\..+(?<!lora_A)(?<!lora_B)"
    )
    for part in ("preprocessors", "trunks", "heads")
    for trunk in ("vision", "text")
}
DETECTOR_GROUPS = {
    "the image decoder (image_decoder.*)": r"image_decoder\..+",
    "the locator (locator.*)": r"locator\..+",
    "the classifier (classifier.*)": r"classifier\..+",
}
LLM_GROUPS = {
    "the forgery prompt learner (prompt_learner.*)": r"prompt_learner\..+",
    "the image projection (llama_proj.*)": r"llama_proj\..+",
    "the language model's LoRA (llama_model.*.lora_A/B.*)": r"llama_model\..+\.lora_[AB]\..+",
}
HEADS = ("locator.", "classifier.", "prompt_learner.")


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
        config: `LvlmDfdConfig` fields that differ from the released ones.
        variant: `"full"` (default) or `"detector"`, verdict and mask without a language model, whose folder is then
            not needed.
        lora: `"fold"` merges all LoRA into the weights; `"adapter"` writes it to `output/adapter`, a PEFT adapter for
            the whole model.
        lora_already_merged: whether ImageBind's weights already contain its LoRA, as in a file saved in evaluation
            mode. Determined by comparison if the public ImageBind file is given, otherwise `False`.
        llm_lora_alpha: alpha of the language model's LoRA, which is not in the file; the official code uses 32.

    Raises:
        ValueError: if a required group is missing (the message names it), a file has an unknown type, or any key is
            missing, unexpected or of the wrong shape.
    """
    _check_option("variant", variant or "full", VARIANTS)
    _check_option("lora", lora, LORA_CHOICES)
    checkpoint, stock, base, folder = _read_sources(sources)
    full = variant != "detector"
    _check_groups(checkpoint, with_stock=bool(stock), full=full)
    if full and not (base or any(name.endswith("lm_head.weight") for name in checkpoint)):
        raise ValueError(
            "The checkpoint does not contain a language model: add the folder of lmsys/vicuna-7b-v1.5-16k to "
            "`sources`, or convert only verdict and mask with variant='detector'."
        )

    names = rename_keys(checkpoint, CHECKPOINT_TABLE, "The checkpoint")
    tensors, pairs = split_lora({new: checkpoint[old] for old, new in names.items()})
    tensors = {**base, **tensors}
    stock_names = rename_keys(stock, STOCK_TABLE, "The ImageBind file")
    stock = {new: stock[old] for old, new in stock_names.items()}
    if not full:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(LLM_PARTS)}
        pairs = {name: pair for name, pair in pairs.items() if not name.startswith(LLM_PARTS)}
    merged = _find_merged(tensors, pairs, stock, lora_already_merged)
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
        _save_adapter(pairs, scales, output / "adapter")


def _check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, allowed are {', '.join(map(repr, allowed))}.")


def _read_sources(
    sources: Sequence[Path],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor], Path | None]:
    """Return checkpoint and public ImageBind file with official names, language model with ours, and its folder."""
    checkpoint: dict[str, torch.Tensor] = {}
    stock: dict[str, torch.Tensor] = {}
    base: dict[str, torch.Tensor] = {}
    folders = [path for path in sources if path.is_dir()]
    if len(folders) > 1:
        raise ValueError(f"Expected one folder (the language model), got {', '.join(map(str, folders))}.")
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
                f"file (modality_trunks.*); it contains {', '.join(sorted(tensors)[:4])}, ..."
            )
    if not checkpoint:
        raise ValueError("There is no LVLM-DFD checkpoint (ckpt.pth) among the sources.")
    for folder in folders:
        for path in weight_files(folder):
            tensors = read_tensors(path)
            names = rename_keys(tensors, LANGUAGE_MODEL_TABLE, f"The language model {path.name}")
            base |= {new: tensors[old] for old, new in names.items()}
    return checkpoint, stock, base, folders[0] if folders else None


def _read_tokenizer(folder: Path | None) -> PreTrainedTokenizerBase:
    if folder is None or not has_tokenizer(folder):
        raise ValueError(
            f"No tokenizer ({', '.join(TOKENIZER_FILES)}) among the sources: add the folder of the language "
            "model to `sources`."
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.pad_token = tokenizer.eos_token  # as in the official code
    return tokenizer


def _settings(fields: dict[str, Any], folder: Path | None, tokenizer: PreTrainedTokenizerBase | None) -> LvlmDfdConfig:
    if tokenizer is None:
        return LvlmDfdConfig(**{**fields, "text_config": None})
    fields = dict(fields)
    if "text_config" not in fields:
        fields["text_config"] = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if "stop_token_id" not in fields:
        stop = tokenizer.convert_tokens_to_ids(STOP_WORD)
        if stop == tokenizer.unk_token_id:
            raise ValueError(
                f"The tokenizer does not have {STOP_WORD!r}, at which the official code stops. Check that it belongs "
                "to the language model, or set stop_token_id in `config`."
            )
        fields["stop_token_id"] = stop
    return LvlmDfdConfig(**fields)


def _missing_ctx(config: LvlmDfdConfig) -> torch.Tensor:
    if config.ctx_missing == "error":
        raise ValueError("The checkpoint does not contain ctx (learned context vectors), and ctx_missing is 'error'.")
    shape = (config.num_ctx_tokens, config.imagebind_config.projection_dim)
    logger.warning(
        "The checkpoint does not contain ctx (the official code never saves it), so it is set to %s. See ctx_missing.",
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


def _check_groups(tensors: Mapping[str, torch.Tensor], *, with_stock: bool, full: bool) -> None:
    """Raise a `ValueError` that names the groups missing from a checkpoint.

    Args:
        tensors: its tensors, with official names.
        with_stock: whether the public ImageBind file is given, so that ImageBind's plain weights may be missing.
        full: whether the language model's parts are required, too.
    """
    keys = set(tensors)
    groups = {**({} if with_stock else ENCODER_GROUPS), **DETECTOR_GROUPS, **(LLM_GROUPS if full else {})}
    missing = [name for name, pattern in groups.items() if not any(re.fullmatch(pattern, each) for each in keys)]
    heads = HEADS if full else HEADS[:2]
    # In these heads, only BatchNorm has weights with one axis.
    norms = [
        key.removesuffix(".weight")
        for key, tensor in tensors.items()
        if key.startswith(heads) and key.endswith(".weight") and tensor.ndim == 1
    ]
    if any(f"{norm}.{kind}" not in keys for norm in norms for kind in ("running_mean", "running_var")):
        missing.append("BatchNorm statistics (running_mean, running_var; lost if only trainable parameters are saved)")
    if missing:
        raise ValueError(f"The checkpoint lacks {'; '.join(missing)}, which the conversion needs.")


def _find_merged(
    tensors: Mapping[str, torch.Tensor], pairs: Pairs, stock: Mapping[str, torch.Tensor], told: bool | None
) -> bool:
    """Return whether the ImageBind weights of a checkpoint already contain its LoRA.

    Args:
        tensors, stock: checkpoint and public file with our names; missing tensors come from the public file.
        pairs: LoRA by module.
        told: the user's answer; `None` decides by comparison, and means no if there is nothing to compare.

    Raises:
        ValueError: if the comparison is inconclusive, or contradicts `told`.
    """
    votes = {}
    for name, (a, b) in pairs.items():
        key = f"{name}.weight"
        if key not in stock or key not in tensors:
            continue
        public, found, delta = stock[key].float(), tensors[key].float(), b.float() @ a.float() / len(a)
        if not delta.any():
            continue
        plain, merged = (found - public).norm(), (found - public - delta).norm()
        if min(plain, merged) > SAME * public.norm():
            raise ValueError(
                f"{name} of the checkpoint is neither the public ImageBind weight nor that weight with its LoRA. "
                "Check that both files belong to the same model."
            )
        votes[name] = bool(merged < plain)
    if not votes:
        return bool(told)
    if len(set(votes.values())) > 1:
        raise ValueError(
            "Some ImageBind weights of the checkpoint contain their LoRA, others do not: "
            f"{', '.join(sorted(name for name, merged in votes.items() if merged)[:4])} do."
        )
    (merged,) = set(votes.values())
    if told is not None and told != merged:
        raise ValueError(
            f"lora_already_merged is {told}, but the comparison with the public ImageBind file gives {merged}."
        )
    return merged


def _save_adapter(pairs: Pairs, scales: Mapping[str, float], output: Path) -> None:
    """Write a PEFT adapter for the whole model.

    Args:
        pairs: LoRA by module.
        scales: factor of `B @ A` by module, which becomes its alpha.
        output: new folder.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ValueError("lora='adapter' needs the package peft: pip install peft") from error

    ranks = {name: len(pair[0]) for name, pair in pairs.items()}
    alphas = {name: scales[name] * ranks[name] for name in pairs}
    first = next(iter(pairs))
    config = LoraConfig(
        r=ranks[first],
        lora_alpha=alphas[first],
        target_modules="|".join(sorted(_families(pairs))),
        rank_pattern=_pattern(ranks, ranks[first]),
        alpha_pattern=_pattern(alphas, alphas[first]),
    )
    config.inference_mode = True
    output.mkdir(parents=True)
    config.save_pretrained(output)
    tensors = {}
    for name, (a, b) in pairs.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.contiguous()
    save_file(tensors, output / "adapter_model.safetensors", metadata={"format": "pt"})


def _family(name: str) -> str:
    return re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name))


def _families(names: Mapping[str, object]) -> set[str]:
    """Return patterns for names that match any layer number."""
    return {_family(name) for name in names}


def _pattern(values: Mapping[str, float], usual: float) -> dict[str, float]:
    return {_family(name): value for name, value in values.items() if value != usual}
