"""Compare two series of scores for the same images, and estimate how much of the difference is due to chance.

The bootstrap draws images (or whole groups), and each draw counts for both series, so that the difficulty of an image
cancels out (Efron and Tibshirani, "An Introduction to the Bootstrap", ch. 10).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from deepfake_detectors.evaluation.bootstrap import draw_weights, percentile_interval
from deepfake_detectors.evaluation.curve import ScoreCurve, check_scores, gather, one_class_reason
from deepfake_detectors.evaluation.metrics import MetricSet

__all__ = ["compare_scores"]

RANKED = ("auc", "auc_difference")


def compare_scores(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    thresholds: tuple[float, float] = (0.5, 0.5),
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> MetricSet:
    """Compare the second series of scores with the first.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        first, second: `(n,)`, higher means more fake; for the same images in the same order.
        thresholds: score at or above which an image counts as fake, for each series.
        groups: `(n,)`; images with the same value share source material, and whole groups are resampled.
        resamples: bootstrap resamples for the 95 % intervals; 0 for none.
        seed: seed of the bootstrap.

    Returns:
        `auc`, `accuracy`, `false_alarm_rate` and `miss_rate` of the second; `flip_rate`, the share of images with a
        different verdict; `auc_difference` and `accuracy_difference`, second minus first.

    Raises:
        ValueError: as for `check_scores`.
    """
    truth, before = check_scores(labels, first)
    _, after = check_scores(labels, second)
    curves = ScoreCurve(truth, before), ScoreCurve(truth, after)
    said = [values >= limit for values, limit in zip((before, after), thresholds, strict=True)]
    real, fake = (np.asarray(truth == label, dtype=np.float64) for label in (0, 1))
    right = [verdict == (truth == 1) for verdict in said]

    def values(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            areas = [curve.auc(weights) for curve in curves]
            shares = [weights @ hits / total for hits in right]
            return {
                "auc": areas[1],
                "accuracy": shares[1],
                "false_alarm_rate": weights @ (real * said[1]) / (weights @ real),
                "miss_rate": weights @ (fake * ~said[1]) / (weights @ fake),
                "flip_rate": weights @ (said[0] != said[1]) / total,
                "auc_difference": areas[1] - areas[0],
                "accuracy_difference": shares[1] - shares[0],
            }

    whole = values(np.ones((1, truth.size)))
    drawn = gather(map(values, draw_weights(truth, groups, resamples, seed))) if resamples else {}
    one_class = one_class_reason(truth)
    reasons = dict.fromkeys(RANKED, one_class) if one_class else {}
    if not real.any():
        reasons["false_alarm_rate"] = "the set has no real image"
    if not fake.any():
        reasons["miss_rate"] = "the set has no fake image"
    result = MetricSet()
    for name, found in whole.items():
        reason = reasons.get(name)
        interval = None if reason or not drawn else percentile_interval(drawn[name])
        result.add(name, None if reason else float(found[0]), reason, interval)
    return result
