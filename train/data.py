"""From a data set builder to batches: splits, balanced order, augmentation, mask labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, Sampler

from deepfake_detectors.builders import load_split
from deepfake_detectors.dataset_scripts.common import CLASS_NAMES, split_by_group
from deepfake_detectors.train.arguments import DataArguments
from deepfake_detectors.train.twin_masks import TwinMasks, shift_image

__all__ = ["BalancedSampler", "PictureDataset", "load_train_and_validation", "require_both_classes"]


def load_train_and_validation(
    arguments: DataArguments, rebuild: bool = True
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """The training rows, and those set aside by whole groups, each with both classes."""
    rows = load_split(
        arguments.dataset,
        arguments.train_split,
        arguments.data_dir,
        arguments.dataset_config,
        arguments.dataset_options,
        rebuild,
    )
    first, second = split_by_group(rows["group_id"], arguments.validation_fraction, arguments.validation_seed)
    train, validation = rows.select(first), rows.select(second)
    require_both_classes(train["label"], "training split")
    require_both_classes(validation["label"], "validation split")
    return train, validation


def require_both_classes(labels: Sequence[int], what: str) -> None:
    """Raise a `ValueError` unless the labels hold reals and fakes."""
    counts = Counter(labels)
    if len(counts) < len(CLASS_NAMES):
        table = ", ".join(f"{counts[index]} {name}" for index, name in enumerate(CLASS_NAMES))
        raise ValueError(
            f"The {what} holds {table}. A detector needs both classes to learn from and to be ranked on; check the "
            "data folder, or change validation_fraction or validation_seed."
        )


class PictureDataset(Dataset):
    """Rows of a builder as model inputs.

    Args:
        rows: with the columns `image` and `label`.
        image_processor: the family's own, so that training sees what inference will see.
        mirror: mirror every second picture.
        shift_cell: shift by -1, 0 or 1 times this many pixels in both directions, repeating the edge.
        masks: mask labels, or `None`.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        image_processor: Any,
        mirror: bool = False,
        shift_cell: int = 0,
        masks: TwinMasks | None = None,
    ) -> None:
        self.rows = rows
        self.labels = rows["label"][:]
        self.image_processor = image_processor
        self.mirror, self.shift_cell, self.masks = mirror, shift_cell, masks

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """`pixel_values` (3, height, width), `labels` () int64 and, with masks, `mask_labels` (size, size)."""
        flip = self.mirror and bool(torch.rand(()) < 0.5)
        rows, columns = (
            (self.shift_cell * int(torch.randint(-1, 2, ())) for _ in range(2)) if self.shift_cell else (0, 0)
        )
        image = shift_image(np.asarray(self.rows[index]["image"].convert("RGB")), rows, columns)
        image = image[:, ::-1] if flip else image
        pixels = self.image_processor(Image.fromarray(np.ascontiguousarray(image)), return_tensors="pt")[
            "pixel_values"
        ]
        item = {"pixel_values": pixels[0], "labels": torch.tensor(self.labels[index])}
        if self.masks is not None:
            item["mask_labels"] = torch.from_numpy(self.masks.label(index, flip, rows, columns))
        return item


class BalancedSampler(Sampler[int]):
    """Half real, the other half evenly over the manipulations, in every stretch of the order.

    One pass has as many draws as there are rows. Each class and manipulation is walked through in a random order, and
    again in a new one when it is exhausted.

    Args:
        labels: 0 real, 1 fake, one per row.
        manipulations: one name per row.
        seed: the order follows from it and the epoch alone, so that a resumed run sees what the first would have.

    Raises:
        ValueError: if a class is missing.
    """

    def __init__(self, labels: Sequence[int], manipulations: Sequence[str], seed: int = 0) -> None:
        require_both_classes(labels, "set to sample from")
        self.seed, self.epoch, self.length = seed, 0, len(labels)
        self.reals = [index for index, label in enumerate(labels) if label == 0]
        by_method: dict[str, list[int]] = {}
        for index, (label, method) in enumerate(zip(labels, manipulations, strict=True)):
            if label == 1:
                by_method.setdefault(method, []).append(index)
        self.fakes = [by_method[method] for method in sorted(by_method)]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        reals, fakes = _endless(self.reals, generator), [_endless(pool, generator) for pool in self.fakes]
        for draw in range(self.length):
            pair, is_fake = divmod(draw, 2)
            yield next(fakes[pair % len(fakes)] if is_fake else reals)


def _endless(pool: Sequence[int], generator: np.random.Generator) -> Iterator[int]:
    while True:
        yield from (pool[int(position)] for position in generator.permutation(len(pool)))
