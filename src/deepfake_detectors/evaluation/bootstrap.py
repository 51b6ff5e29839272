"""Bootstrap confidence intervals: how much of a number is due to chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepfake_detectors.evaluation.curve import check_scores

__all__ = ["Interval", "Metric", "bootstrap_interval", "draw_weights", "mean_interval", "percentile_interval"]

Metric = Callable[[np.ndarray, np.ndarray], "float | None"]
CHUNK = 2_000_000  # limit for weights in memory: 16 MB


@dataclass
class Interval:
    """A percentile interval.

    Attributes:
        low: lower end.
        high: upper end.
        level: share of resamples inside, in (0, 1).
        resamples: number of resamples with a defined value.
        by: the resampled unit, `"picture"` or `"group"`.
    """

    low: float
    high: float
    level: float
    resamples: int
    by: str

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def bootstrap_interval(
    metric: Metric,
    labels: ArrayLike,
    scores: ArrayLike,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Return a percentile bootstrap interval (Efron and Tibshirani, "An Introduction to the Bootstrap",
    ch. 13).

    Args:
        metric: takes labels and scores, both `(n,)`, and returns a number, or `None` if undefined.
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`.
        groups: `(n,)`; images with the same value share source material. If given, whole groups are drawn, because
            their images are not independent; otherwise images are drawn within each class.
        level: share of resamples inside the interval.
        resamples: number of resamples to draw.
        seed: the same seed gives the same interval.

    Returns:
        The interval, or `None` if the metric is undefined on the dataset itself.

    Raises:
        ValueError: as for `check_scores`, or for `level` or `resamples` out of range.
    """
    truth, values = check_scores(labels, scores)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}, expected a share between 0 and 1 (exclusive), such as 0.95.")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected 1 or more.")
    if metric(truth, values) is None:
        return None
    generator = np.random.default_rng(seed)
    units = _units(truth, groups)
    results = []
    for _ in range(resamples):
        drawn = np.concatenate([_draw(pool, generator) for pool in units])
        result = metric(truth[drawn], values[drawn])
        if result is not None:  # a draw of groups can miss a class
            results.append(result)
    if not results:
        raise ValueError(f"None of {resamples} resamples had both classes; the dataset is too small for an interval.")
    return percentile_interval(np.array(results), level, "picture" if groups is None else "group")


def draw_weights(
    strata: ArrayLike, groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> Iterator[np.ndarray]:
    """Yield the resamples of `n` units as weights, for statistics that can handle many resamples at once.

    Args:
        strata: `(n,)`, values whose share is kept in every resample, such as labels; all equal to keep nothing.
        groups: `(n,)`; if given, whole groups are drawn, and `strata` is ignored.
        resamples: number of resamples to draw.
        seed: the same seed gives the same weights.

    Yields:
        float64 `(some, n)`, `resamples` rows in total: the number of times each unit was drawn.

    Raises:
        ValueError: without units, or for groups of another length.
    """
    kinds = np.asarray(strata)
    if kinds.ndim != 1 or kinds.size == 0:
        raise ValueError(f"strata has shape {kinds.shape}, expected (n,) with n of 1 or more.")
    generator = np.random.default_rng(seed)
    if groups is not None and len(groups) != kinds.size:
        raise ValueError(f"groups has {len(groups)} entries, expected one per unit, {kinds.size}.")
    _, member = np.unique(np.asarray(kinds if groups is None else groups, dtype=str), return_inverse=True)
    pools = (
        [np.arange(member.max() + 1)]
        if groups is not None
        else [np.flatnonzero(member == kind) for kind in range(member.max() + 1)]
    )
    size = sum(pool.size for pool in pools)
    at_once = max(1, CHUNK // kinds.size)
    for start in range(0, resamples, at_once):
        counts = np.zeros((min(at_once, resamples - start), size))
        for row in counts:
            for pool in pools:
                drawn = pool[generator.integers(pool.size, size=pool.size)]
                row += np.bincount(drawn, minlength=size)
        yield counts if groups is None else counts[:, member]


def percentile_interval(values: np.ndarray, level: float = 0.95, by: str = "picture") -> Interval | None:
    """Return the interval of a statistic from its values in resamples, ignoring NaN; `None` if all are NaN."""
    defined = values[np.isfinite(values)]
    if not defined.size:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, int(defined.size), by)


def mean_interval(
    values: np.ndarray, groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> Interval | None:
    """Return the 95 % interval of the mean of `values` `(n,)`, groups as in `draw_weights`, or `None`."""
    if not resamples:
        return None
    draws = draw_weights(np.zeros(len(values)), groups, resamples, seed)
    means = [weights @ values / weights.sum(axis=1) for weights in draws]
    return percentile_interval(np.concatenate(means), by="picture" if groups is None else "group")


def _draw(pool: np.ndarray | list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    places = generator.integers(len(pool), size=len(pool))
    return pool[places] if isinstance(pool, np.ndarray) else np.concatenate([pool[i] for i in places])


def _units(truth: np.ndarray, groups: Sequence[str] | None) -> list[np.ndarray | list[np.ndarray]]:
    """Return pools to draw from with replacement: index arrays for single images, lists of index arrays for groups."""
    if groups is None:
        return [np.flatnonzero(truth == value) for value in np.unique(truth)]
    names = np.asarray(groups, dtype=object)
    if names.shape != truth.shape:
        raise ValueError(f"groups has shape {names.shape}, expected one group per image, {truth.shape}.")
    return [[np.flatnonzero(names == name) for name in sorted(set(names.tolist()))]]
