"""Conversations about images: rows of a builder, and batches encoded by a family's processor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch

from deepfake_detectors.data.loading import load_split, undecoded
from deepfake_detectors.modeling.image_loading import load_image
from deepfake_detectors.train.arguments import SftDataArguments
from deepfake_detectors.train.data import require_both_classes, set_validation_aside
from deepfake_detectors.train.families import SftFamily

__all__ = ["ConversationCollator", "load_conversations"]

# The columns for a batch; loaders drop all others.
COLUMNS = ("image", "mask", "label", "question", "answer", "messages")


def load_conversations(arguments: SftDataArguments, rebuild: bool = True) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Return training rows, and validation rows with one conversation per image.

    Args:
        arguments: rows of several configs are combined before whole groups of source videos are set aside, so that
            each image is in only one part.
        rebuild: see `load_split`.

    Raises:
        ValueError: for an empty split, a split with one class, or rows without conversations.
        FileNotFoundError: for missing data.
    """
    configs = arguments.dataset_configs or [arguments.dataset_config]
    parts = [
        load_split(
            arguments.dataset, arguments.train_split, arguments.data_dir, config, arguments.dataset_options, rebuild
        )
        for config in configs
    ]
    if arguments.conversation == "dataset":
        silent = [str(config) for config, part in zip(configs, parts, strict=True) if "messages" not in part.features]
        if silent:
            raise ValueError(
                f"{arguments.dataset} has no conversations in config {', '.join(silent)}; choose another config, or "
                "set conversation to 'verdict'."
            )
    rows = datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    train, validation = set_validation_aside(rows, arguments)
    validation = validation.select(
        _one_row_per_picture(validation, arguments.validation_seed, arguments.validation_pictures)
    )
    require_both_classes(validation["label"], "validation split")
    return tuple(
        undecoded(part.select_columns([name for name in COLUMNS if name in part.features]))
        for part in (train, validation)
    )


def _one_row_per_picture(rows: datasets.Dataset, seed: int, limit: int | None) -> list[int]:
    """Return at most `limit` indices in an order given by the seed: the first row of every image."""
    stored = undecoded(rows.select_columns(["image"]))
    first: dict[str, int] = {}
    for index in np.random.default_rng(seed).permutation(len(rows)).tolist():
        if limit is not None and len(first) == limit:
            break
        image = stored[index]["image"]
        key = image["path"] if image["bytes"] is None else hashlib.sha256(image["bytes"]).hexdigest()
        first.setdefault(key, index)
    return list(first.values())


class ConversationCollator:
    """Collates rows into a training batch with the family's own `encode_conversations`.

    Args:
        family: see `SftFamily`.
        processor: processor of that family.
        conversation: see `SftDataArguments`.
        max_length: see the processor's `encode_conversations`; `None` does not truncate.
    """

    def __init__(self, family: SftFamily, processor: Any, conversation: str, max_length: int | None) -> None:
        self.family, self.processor = family, processor
        self.conversation, self.max_length = conversation, max_length

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return `labels` (rows, length) int64, -100 where not supervised, and the model's other inputs."""
        conversations = [self.family.converse(self.pairs(row)) for row in rows]
        images = [load_image(row["image"]) for row in rows]
        batch = dict(self.processor.encode_conversations(conversations, images, max_length=self.max_length))
        if self.family.takes_classes:
            batch["class_labels"] = torch.tensor([row["label"] for row in rows])
        return batch

    def pairs(self, row: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the questions of a row with their answers."""
        if self.conversation == "verdict":
            return self.family.verdict_pairs(row)
        contents = [message["content"] for message in row["messages"]]
        return list(zip(contents[::2], contents[1::2], strict=True))
