"""Selection of trained parameters, and optimisers and schedules that `TrainingArguments` does not offer."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import LambdaLR

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "epoch_cosine",
    "freeze_modules",
    "is_inside",
    "require_known",
    "rest_frozen_norms",
    "schedule_options",
    "train_only",
]

# Prefixes and infixes that PEFT adds to parameter names.
WRAPPERS = re.compile(
    r"^base_model\.model\.|\.(?:modules_to_save|original_module|base_layer|lora_[AB])(?:\.default)?(?=\.)"
)


def freeze_modules(model: nn.Module, prefixes: Iterable[str], what: str = "freeze") -> None:
    """Freeze every parameter under one of the prefixes.

    Raises:
        ValueError: for a prefix without a match; `what` is the setting it came from.
    """
    require_known(prefixes, [name for name, _ in model.named_parameters()], what)
    for name, parameter in model.named_parameters():
        if any(is_inside(name, prefix) for prefix in prefixes):
            parameter.requires_grad_(False)


def train_only(model: nn.Module, prefixes: Iterable[str]) -> None:
    """Freeze every parameter that is not under one of the prefixes.

    Raises:
        ValueError: for a prefix without a match.
    """
    require_known(prefixes, [name for name, _ in model.named_parameters()], "train_only")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(is_inside(name, prefix) for prefix in prefixes))


def rest_frozen_norms(model: nn.Module) -> None:
    """Put frozen batch norms into eval mode, because in train mode they would still update their statistics."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(weight.requires_grad for weight in module.parameters()):
            module.eval()


def is_inside(name: str, prefix: str) -> bool:
    """Return whether a dotted name, without PEFT's additions, equals the prefix or is under it."""
    name = WRAPPERS.sub("", name)
    return name == prefix or name.startswith(f"{prefix}.")


def require_known(prefixes: Iterable[str], names: list[str], what: str) -> None:
    """Raise a `ValueError` for prefixes without any parameter."""
    unknown = [prefix for prefix in prefixes if not any(is_inside(name, prefix) for name in names)]
    if unknown:
        modules = sorted({".".join(WRAPPERS.sub("", name).split(".")[:2]) for name in names})
        raise ValueError(f"{what} contains {', '.join(unknown)}, but the model has {', '.join(modules)}.")


# Recipe key `optimizer`. `adam`: adds weight decay to the gradient (coupled L2), while AdamW shrinks the weights.
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam}


def epoch_cosine(
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    steps_per_epoch: int,
    epochs: float,
    min_lr: float = 0.0,
    start_lr: float | None = None,
    warmup_steps: int = 0,
) -> LambdaLR:
    """The LAVIS schedule used to train AntifakePrompt: a cosine that changes once per epoch.

    Args:
        optimizer: the optimizer; its groups keep the ratio of their learning rates.
        learning_rate: learning rate of the first epoch.
        steps_per_epoch: optimizer steps per epoch.
        epochs: number of epochs after which the cosine would reach `min_lr`; the last epoch is one step above it.
        min_lr: lower end of the cosine.
        start_lr: learning rate of the very first step, which grows linearly to `learning_rate` over `warmup_steps`
            within the first epoch. LAVIS does one such step even with `warmup_steps` 0. `None`: no warm-up.
        warmup_steps: see `start_lr`.
    """

    def share(step: int) -> float:
        epoch, inside = divmod(step, steps_per_epoch)
        if epoch == 0 and start_lr is not None:
            rise = (learning_rate - start_lr) * inside / max(warmup_steps, 1)
            return min(learning_rate, start_lr + rise) / learning_rate
        rate = (learning_rate - min_lr) * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs)) + min_lr
        return rate / learning_rate

    return LambdaLR(optimizer, share)


# Recipe key `lr_schedule`; its options come from `lr_scheduler_kwargs`.
SCHEDULES = {"epoch_cosine": epoch_cosine}
GIVEN_BY_TRAINER = ("optimizer", "learning_rate", "steps_per_epoch", "epochs")


def schedule_options(name: str, options: dict[str, Any] | None) -> dict[str, Any]:
    """Return `options` as numbers (YAML reads 1e-8 as text).

    Raises:
        ValueError: for an unknown option, or a value that is not a number.
    """
    allowed = [key for key in inspect.signature(SCHEDULES[name]).parameters if key not in GIVEN_BY_TRAINER]
    if unknown := sorted(set(options or {}) - set(allowed)):
        raise ValueError(f"lr_scheduler_kwargs contains {', '.join(unknown)}; {name} accepts {', '.join(allowed)}.")
    return {key: None if value is None else float(value) for key, value in (options or {}).items()}
