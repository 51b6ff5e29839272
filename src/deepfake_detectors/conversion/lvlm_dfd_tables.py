"""Key tables of the official LVLM-DFD checkpoint, and the groups that it must hold."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from deepfake_detectors.conversion.imagebind import ENCODER_PREFIX, IMAGEBIND_TABLE
from deepfake_detectors.conversion.key_table import KeyTable

__all__ = [
    "CHECKPOINT_TABLE",
    "IMAGEBIND",
    "LANGUAGE_MODEL",
    "LANGUAGE_MODEL_TABLE",
    "LLM_PARTS",
    "STOCK_TABLE",
    "check_groups",
]

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
    # Newer PEFT puts the wrapped layer's own weight one level deeper.
    (rf"{PEFT_PREFIX}(.+_proj)\.(?:base_layer\.)?weight", rf"{LANGUAGE_MODEL}\1.weight"),
    (rf"{PEFT_PREFIX}(model\.(?:embed_tokens|norm|layers\.\d+\.\w+)\.weight|lm_head\.weight)", rf"{LANGUAGE_MODEL}\1"),
]

# What no conversion can do without: name for people, pattern of at least one key.
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


def check_groups(tensors: Mapping[str, torch.Tensor], *, with_stock: bool, full: bool) -> None:
    """Raise a `ValueError` that names the groups a checkpoint lacks.

    Args:
        tensors: what it holds, by its official names.
        with_stock: the public ImageBind file is at hand, so ImageBind's plain weights may be missing.
        full: the language model's parts are wanted too.
    """
    keys = set(tensors)
    groups = {**({} if with_stock else ENCODER_GROUPS), **DETECTOR_GROUPS, **(LLM_GROUPS if full else {})}
    missing = [name for name, pattern in groups.items() if not any(re.fullmatch(pattern, each) for each in keys)]
    heads = HEADS if full else HEADS[:2]
    # Of these heads, only BatchNorm has weights with one axis.
    norms = [
        key.removesuffix(".weight")
        for key, tensor in tensors.items()
        if key.startswith(heads) and key.endswith(".weight") and tensor.ndim == 1
    ]
    if any(f"{norm}.{kind}" not in keys for norm in norms for kind in ("running_mean", "running_var")):
        missing.append(
            "BatchNorm statistics (running_mean, running_var; a saver that keeps trainable parameters only loses them)"
        )
    if missing:
        raise ValueError(f"The checkpoint lacks {'; '.join(missing)}. It cannot be converted without.")
