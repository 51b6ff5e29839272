"""Which parameters of a model are trained, by the names of its modules."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

__all__ = ["freeze_modules", "is_inside", "require_known", "train_only"]


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


def is_inside(name: str, prefix: str) -> bool:
    """Whether a dotted name is the prefix or lies under it."""
    return name == prefix or name.startswith(f"{prefix}.")


def require_known(prefixes: Iterable[str], names: list[str], what: str) -> None:
    """Raise a `ValueError` for prefixes under which no name lies."""
    unknown = [prefix for prefix in prefixes if not any(is_inside(name, prefix) for name in names)]
    if unknown:
        modules = sorted({".".join(name.split(".")[:2]) for name in names})
        raise ValueError(f"{what} names {', '.join(unknown)}, but the model has {', '.join(modules)}.")
