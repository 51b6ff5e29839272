"""LoRA of an LVLM-DFD checkpoint: is it merged already, and how to keep it as a PEFT adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

__all__ = ["find_merged", "save_adapter"]

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]

# Relative distance up to which a weight counts as equal to the public one; bfloat16 rounds to 1/256.
SAME = 1 / 128


def find_merged(
    tensors: Mapping[str, torch.Tensor], pairs: Pairs, stock: Mapping[str, torch.Tensor], told: bool | None
) -> bool:
    """Whether the ImageBind weights of a checkpoint already contain its LoRA.

    Args:
        tensors, stock: checkpoint and public file by our names; what the checkpoint lacks comes from the public file.
        pairs: LoRA by module.
        told: what the user says; `None` lets the comparison decide, and means no where there is nothing to compare.

    Raises:
        ValueError: if the comparison says neither, or the opposite of `told`.
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
                f"{name} of the checkpoint is neither the public ImageBind weight nor that weight with its LoRA. Are "
                "both files of the same model?"
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
            f"lora_already_merged is {told}, but comparison with the public ImageBind file says {merged}."
        )
    return merged


def save_adapter(pairs: Pairs, scales: Mapping[str, float], output: Path) -> None:
    """Write a PEFT adapter of the whole model.

    Args:
        pairs: LoRA by module.
        scales: factor of `B @ A` by module; becomes its alpha.
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
    """Patterns that differ from names by any number in place of the layer's."""
    return {_family(name) for name in names}


def _pattern(values: Mapping[str, float], usual: float) -> dict[str, float]:
    return {_family(name): value for name, value in values.items() if value != usual}
