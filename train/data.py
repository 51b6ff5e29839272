"""From a data set builder to batches: splits, balanced order, augmentation, mask labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, Sampler

from deepfake_detectors.builders import load_split
from deepfake_detectors.dataset_scripts.common import CLASS_NAMES, split_by_group
from deepfake_detectors.train.arguments import DataArguments, SourceArguments
from deepfake_detectors.train.twin_masks import TwinMasks, shift_image

__all__ = [
    "BalancedSampler",
    "Draw",
    "PictureDataset",
    "TrainingSampler",
    "load_train_and_validation",
    "require_both_classes",
    "set_validation_aside",
]


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
    return set_validation_aside(rows, arguments)


def set_validation_aside(
    rows: datasets.Dataset, arguments: SourceArguments
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Rows to train on, and rows set aside by whole groups, each with both classes."""
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


class Draw(NamedTuple):
    """One row as it comes up in training: which, and as the how manieth of the whole run."""

    row: int
    number: int


class PictureDataset(Dataset):
    """Rows of a builder as model inputs.

    Args:
        rows: with the columns `image` and `label`.
        image_processor: the family's own, so that training sees what inference will see.
        mirror: mirror every second picture.
        shift_cell: shift by -1, 0 or 1 times this many pixels in both directions, repeating the edge.
        masks: mask labels, or `None`.
        seed: of mirroring and shifting. What a draw gets follows from it and the draw's number, not from a global
            random state that loaders advance at their own pace: a resumed run sees what the first would have.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        image_processor: Any,
        mirror: bool = False,
        shift_cell: int = 0,
        masks: TwinMasks | None = None,
        seed: int = 0,
    ) -> None:
        self.rows = rows
        self.labels = rows["label"][:]
        self.image_processor = image_processor
        self.mirror, self.shift_cell, self.masks, self.seed = mirror, shift_cell, masks, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw | int) -> dict[str, torch.Tensor]:
        """`pixel_values` (3, height, width), `labels` () int64 and, with masks, `mask_labels` (size, size).

        A plain index gives the row as it is; a `Draw` varies it.
        """
        index, flip, down, right = draw, False, 0, 0
        if isinstance(draw, Draw):
            generator = np.random.default_rng([self.seed, draw.number])
            index = draw.row
            flip = self.mirror and bool(generator.random() < 0.5)
            down, right = (self.shift_cell * int(step) for step in generator.integers(-1, 2, size=2))
        image = shift_image(np.asarray(self.rows[index]["image"].convert("RGB")), down, right)
        image = image[:, ::-1] if flip else image
        picture = Image.fromarray(np.ascontiguousarray(image))
        pixels = self.image_processor(picture, return_tensors="pt")["pixel_values"]
        item = {"pixel_values": pixels[0], "labels": torch.tensor(self.labels[index])}
        if self.masks is not None:
            item["mask_labels"] = torch.from_numpy(self.masks.label(index, flip, down, right))
        return item


class TrainingSampler(Sampler[Draw]):
    """Every row once per pass, in a random order that follows from the seed and the epoch alone.

    Args:
        length: number of rows.
        seed: of the order.
    """

    def __init__(self, length: int, seed: int = 0) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Draw]:
        order = self.order(np.random.default_rng([self.seed, self.epoch]))
        for number, row in enumerate(order, start=self.epoch * self.length):
            yield Draw(row, number)

    def order(self, generator: np.random.Generator) -> Iterator[int]:
        """The rows of one pass."""
        yield from map(int, generator.permutation(self.length))


class BalancedSampler(TrainingSampler):
    """Half real, the other half evenly over the manipulations, in every stretch of the order.

    One pass has as many draws as there are rows. Each class and manipulation is walked through in a random order, and
    again in a new one when it is exhausted.

    Args:
        labels: 0 real, 1 fake, one per row.
        manipulations: one name per row.
        seed: of the order.

    Raises:
        ValueError: if a class is missing.
    """

    def __init__(self, labels: Sequence[int], manipulations: Sequence[str], seed: int = 0) -> None:
        require_both_classes(labels, "set to sample from")
        super().__init__(len(labels), seed)
        self.reals = [row for row, label in enumerate(labels) if label == 0]
        by_method: dict[str, list[int]] = {}
        for row, (label, method) in enumerate(zip(labels, manipulations, strict=True)):
            if label == 1:
                by_method.setdefault(method, []).append(row)
        self.fakes = [by_method[method] for method in sorted(by_method)]

    def order(self, generator: np.random.Generator) -> Iterator[int]:
        reals, fakes = _endless(self.reals, generator), [_endless(pool, generator) for pool in self.fakes]
        for position in range(self.length):
            pair, is_fake = divmod(position, 2)
            yield next(fakes[(pair + self.epoch) % len(fakes)] if is_fake else reals)


def _endless(pool: Sequence[int], generator: np.random.Generator) -> Iterator[int]:
    while True:
        yield from (pool[int(position)] for position in generator.permutation(len(pool)))
