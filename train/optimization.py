"""Optimisers and schedules of the papers for which `TrainingArguments` has no name, made of torch's own classes."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["OPTIMIZERS", "SCHEDULES", "epoch_cosine", "schedule_options"]

# Recipe key `optimizer`. `adam`: weight decay is added to the gradient (coupled L2), where AdamW shrinks the weight.
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
    """LAVIS' schedule, with which AntifakePrompt was trained: a cosine that moves once per epoch.

    Args:
        optimizer: its groups keep the ratio of their learning rates.
        learning_rate: of the first epoch.
        steps_per_epoch: optimizer steps of one pass.
        epochs: after which the cosine would reach `min_lr`; the last epoch is one step above.
        min_lr: lower end of the cosine.
        start_lr: of the very first step; from there linearly to `learning_rate` over `warmup_steps`, within the first
            epoch. LAVIS does one such step even with `warmup_steps` 0. `None`: no warm-up.
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
    """`options` as numbers (YAML reads 1e-8 as text).

    Raises:
        ValueError: for an option that the schedule does not have, or no number.
    """
    allowed = [key for key in inspect.signature(SCHEDULES[name]).parameters if key not in GIVEN_BY_TRAINER]
    if unknown := sorted(set(options or {}) - set(allowed)):
        raise ValueError(f"lr_scheduler_kwargs holds {', '.join(unknown)}; {name} knows {', '.join(allowed)}.")
    return {key: None if value is None else float(value) for key, value in (options or {}).items()}
