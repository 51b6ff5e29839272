"""What a training run leaves in folders that are published: safetensors and JSON, no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy

__all__ = ["WithoutPickle", "check_publishing"]


class WithoutPickle:
    """Put before a `Trainer`: saved models come without `training_args.bin`, the one pickle among their files.

    Checkpoints to resume from still hold the optimizer's and the random generators' state; they stay on the machine.
    """

    args: TrainingArguments

    def _save(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        super()._save(output_dir, *args, **kwargs)  # type: ignore[misc]
        if self.args.should_save:
            (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)


def check_publishing(arguments: TrainingArguments) -> None:
    """Refuse what would put a pickle on the Hub.

    Raises:
        ValueError: for `push_to_hub` with a `hub_strategy` that also pushes while training runs.
    """
    if arguments.push_to_hub and arguments.hub_strategy != HubStrategy.END:
        raise ValueError(
            f"hub_strategy is {HubStrategy(arguments.hub_strategy).value!r}, which uploads training_args.bin or "
            "optimizer states, which are pickles, while training runs; set hub_strategy to 'end'."
        )
