"""In which order training pictures come up: from the seed and the epoch alone, so that a resumed run fits."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from deepfake_detectors.dataset_scripts._builder import CLASS_NAMES

__all__ = [
    "BalancedSampler",
    "Draw",
    "TrainingSampler",
    "VideoSampler",
    "require_both_classes",
    "spread_over_videos",
]


class Draw(NamedTuple):
    """One row as it comes up in training: which, and as the how manieth of the whole run."""

    row: int
    number: int


def require_both_classes(labels: Sequence[int], what: str) -> None:
    """Raise a `ValueError` unless the labels hold reals and fakes."""
    counts = Counter(labels)
    if len(counts) < len(CLASS_NAMES):
        table = ", ".join(f"{counts[index]} {name}" for index, name in enumerate(CLASS_NAMES))
        raise ValueError(
            f"The {what} holds {table}. A detector needs both classes to learn from and to be ranked on; check the "
            "data folder, or change validation_fraction or validation_seed."
        )


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


class VideoSampler(TrainingSampler):
    """One random frame of every video per pass, as M2F2-Det's first stage is trained.

    Args:
        video_ids: one per row.
        seed: of the order and of the frames.
    """

    def __init__(self, video_ids: Sequence[str], seed: int = 0) -> None:
        self.videos = list(rows_of_videos(video_ids).values())
        super().__init__(len(self.videos), seed)

    def order(self, generator: np.random.Generator) -> Iterator[int]:
        for video in generator.permutation(len(self.videos)):
            rows = self.videos[int(video)]
            yield rows[int(generator.integers(len(rows)))]


def rows_of_videos(video_ids: Sequence[str]) -> dict[str, list[int]]:
    """video -> its rows, in their order."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, video in enumerate(video_ids):
        rows[video].append(row)
    return rows


def spread_over_videos(video_ids: Sequence[str], frames: int) -> list[int]:
    """At most so many rows per video, evenly spread over its length; ascending."""
    chosen: list[int] = []
    for rows in rows_of_videos(video_ids).values():
        places = np.linspace(-0.5, len(rows) - 0.5, min(frames, len(rows)) + 1)
        chosen += [rows[round((low + high) / 2)] for low, high in itertools.pairwise(places.tolist())]
    return sorted(chosen)


def _endless(pool: Sequence[int], generator: np.random.Generator) -> Iterator[int]:
    while True:
        yield from (pool[int(position)] for position in generator.permutation(len(pool)))
