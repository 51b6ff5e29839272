"""Which parameters of a model are trained, by the names of its modules."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["freeze_modules", "is_inside", "require_known", "rest_frozen_norms", "train_only"]

# What PEFT puts in front of a parameter's name, or inside it.
WRAPPERS = re.compile(
    r"^base_model\.model\.|\.(?:modules_to_save|original_module|base_layer|lora_[AB])(?:\.default)?(?=\.)"
)


def freeze_modules(model: nn.Module, prefixes: Iterable[str], what: str = "freeze") -> None:
    """Stop gradients of every parameter whose name lies under one of the prefixes.

    Raises:
        ValueError: for a prefix that matches nothing; `what` names the setting it came from.
    """
    require_known(prefixes, [name for name, _ in model.named_parameters()], what)
    for name, parameter in model.named_parameters():
        if any(is_inside(name, prefix) for prefix in prefixes):
            parameter.requires_grad_(False)


def train_only(model: nn.Module, prefixes: Iterable[str]) -> None:
    """Stop gradients of every parameter whose name does not lie under one of the prefixes.

    Raises:
        ValueError: for a prefix that matches nothing.
    """
    require_known(prefixes, [name for name, _ in model.named_parameters()], "train_only")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(is_inside(name, prefix) for prefix in prefixes))


def rest_frozen_norms(model: nn.Module) -> None:
    """Put batch norms without a trained weight into eval mode: in train mode they would still learn statistics."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(weight.requires_grad for weight in module.parameters()):
            module.eval()


def is_inside(name: str, prefix: str) -> bool:
    """Whether a dotted name, without PEFT's additions, is the prefix or lies under it."""
    name = WRAPPERS.sub("", name)
    return name == prefix or name.startswith(f"{prefix}.")


def require_known(prefixes: Iterable[str], names: list[str], what: str) -> None:
    """Raise a `ValueError` for prefixes under which no name lies."""
    unknown = [prefix for prefix in prefixes if not any(is_inside(name, prefix) for name in names)]
    if unknown:
        modules = sorted({".".join(WRAPPERS.sub("", name).split(".")[:2]) for name in names})
        raise ValueError(f"{what} names {', '.join(unknown)}, but the model has {', '.join(modules)}.")
