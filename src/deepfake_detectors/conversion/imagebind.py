"""Convert ImageBind weights, from the public file or an LVLM-DFD checkpoint, to the names of `ImageBindModel`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from deepfake_detectors.conversion.checkpoint_files import read_tensors
from deepfake_detectors.conversion.key_table import KeyTable, check_complete, rename_keys
from deepfake_detectors.modeling.configuration_imagebind import ImageBindConfig
from deepfake_detectors.modeling.modeling_imagebind import ImageBindModel

__all__ = ["ENCODER_PREFIX", "IMAGEBIND_TABLE", "convert_imagebind", "fold_lora", "reshape_imagebind", "split_lora"]

# loralib's alpha is the default 1, the rank is 32; the file only shows the rank.
LORA_ALPHA = 1
ENCODER_PREFIX = "visual_encoder."


def _block_rows(trunk: str) -> KeyTable:
    old, new = rf"modality_trunks\.{trunk}\.blocks\.(\d+)\.", rf"{trunk}_model.layers.\1."
    return [
        (rf"{old}norm_([12])\.(weight|bias)", rf"{new}layer_norm\2.\3"),
        (rf"{old}attn\.in_proj_(weight|bias)", rf"{new}self_attn.qkv_proj.\2"),
        (rf"{old}attn\.out_proj\.(weight|bias)", rf"{new}self_attn.out_proj.\2"),
        (rf"{old}mlp\.(fc[12])\.(weight|bias|lora_A|lora_B)", rf"{new}mlp.\2.\3"),
    ]


# `qkv_proj` and the shapes of single tensors: see `reshape_imagebind`.
IMAGEBIND_TABLE: KeyTable = [
    (r"modality_preprocessors\.vision\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"modality_preprocessors\.vision\.rgbt_stem\.proj\.1\.weight", "vision_model.embeddings.patch_embedding.weight"),
    (
        r"modality_preprocessors\.vision\.pos_embedding_helper\.pos_embed",
        "vision_model.embeddings.position_embedding.weight",
    ),
    (r"modality_preprocessors\.text\.pos_embed", "text_model.embeddings.position_embedding.weight"),
    (r"modality_preprocessors\.text\.token_embedding\.weight", "text_model.embeddings.token_embedding.weight"),
    (r"modality_preprocessors\.text\.mask", None),
    (r"modality_trunks\.vision\.pre_transformer_layer\.0\.(weight|bias)", r"vision_model.pre_layernorm.\1"),
    *_block_rows("vision"),
    *_block_rows("text"),
    (r"modality_heads\.vision\.0\.(weight|bias)", r"vision_model.post_layernorm.\1"),
    (r"modality_heads\.vision\.2\.(weight|lora_A|lora_B)", r"visual_projection.\1"),
    (r"modality_heads\.text\.proj\.0\.(weight|bias)", r"text_model.final_layer_norm.\1"),
    (r"modality_heads\.text\.proj\.1\.(weight|lora_A|lora_B)", r"text_projection.\1"),
    (r"modality_postprocessors\.text\.1\.log_logit_scale", "logit_scale"),
    (r"modality_(?:preprocessors|trunks|heads|postprocessors)\.(?:audio|depth|thermal|imu)\..+", None),
]


def reshape_imagebind(tensors: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """Return renamed official tensors in the shapes of `ImageBindModel`.

    Args:
        tensors: tensors by our names; other names are unchanged.
        prefix: prefix of ImageBind's names.

    Raises:
        ValueError: if the image stem is not a 3-d convolution kernel.
    """
    embeddings = f"{prefix}vision_model.embeddings."
    reshaped: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name == f"{embeddings}patch_embedding.weight":
            if tensor.ndim != 5:
                raise ValueError(
                    f"The image stem has shape {tuple(tensor.shape)}, expected (width, 3, 2, size, size)."
                )
            # The official stem sees the image twice, so the kernels of its two frames are summed.
            tensor = tensor.float().sum(dim=2).to(tensor.dtype)
        elif name == f"{embeddings}class_embedding":
            tensor = tensor.flatten()
        elif name.startswith(prefix) and name.endswith("embeddings.position_embedding.weight"):
            tensor = tensor.squeeze(0)
        elif ".self_attn.qkv_proj." in name:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                reshaped[name.replace("qkv_proj", f"{part}_proj")] = rows.clone()
            continue
        reshaped[name] = tensor
    return reshaped


def split_lora(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Return plain tensors, and module name -> (A, B).

    Raises:
        ValueError: for an incomplete pair, listing its names.
    """
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    plain = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.+)\.lora_([AB])", name)
        if match:
            pairs.setdefault(match[1], {})[match[2]] = tensor
        else:
            plain[name] = tensor
    halves = sorted(name for name, pair in pairs.items() if len(pair) < 2)
    if halves:
        raise ValueError(f"The checkpoint has only half of a LoRA pair for {', '.join(halves[:8])}.")
    return plain, {name: (pair["A"], pair["B"]) for name, pair in pairs.items()}


def fold_lora(
    tensors: dict[str, torch.Tensor], name: str, pair: tuple[torch.Tensor, torch.Tensor], scale: float
) -> None:
    """Add `scale * B @ A` to the weight of module `name`, in float32.

    Raises:
        ValueError: if that weight is missing.
    """
    key = f"{name}.weight"
    if key not in tensors:
        raise ValueError(f"There are LoRA tensors for {name}, but its weight is missing.")
    weight = tensors[key]
    tensors[key] = (weight.float() + scale * (pair[1].float() @ pair[0].float())).to(weight.dtype)


def convert_imagebind(
    sources: Sequence[Path],
    output: Path,
    *,
    config: dict[str, Any] | None = None,
    lora_already_merged: bool = False,
) -> None:
    """Write an `ImageBindModel` folder from the public `imagebind_huge.pth`, or from an LVLM-DFD checkpoint.

    Args:
        sources: one file.
        output: empty or new folder.
        config: `ImageBindConfig` fields that differ from the released sizes.
        lora_already_merged: the weights of an LVLM-DFD checkpoint already contain its LoRA.

    Raises:
        ValueError: for several files, or if a key is missing, unexpected or of the wrong shape.
    """
    if len(sources) != 1:
        raise ValueError(f"ImageBind has one file, but {len(sources)} sources were given.")
    tensors = read_tensors(sources[0], inside=("state_dict", "model"))
    tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    if any(key.startswith(ENCODER_PREFIX) for key in tensors):
        tensors = {k.removeprefix(ENCODER_PREFIX): t for k, t in tensors.items() if k.startswith(ENCODER_PREFIX)}
    what = f"The ImageBind file {sources[0].name}"
    names = rename_keys(tensors, IMAGEBIND_TABLE, what)
    plain, pairs = split_lora({new: tensors[old] for old, new in names.items()})
    if not lora_already_merged:
        for name, pair in pairs.items():
            fold_lora(plain, name, pair, LORA_ALPHA / len(pair[0]))
    plain = reshape_imagebind(plain)
    with torch.device("meta"):
        model = ImageBindModel(ImageBindConfig(**(config or {})))
    check_complete(plain, model.state_dict(), what)
    model.load_state_dict(plain, strict=True, assign=True)
    model.save_pretrained(output)
