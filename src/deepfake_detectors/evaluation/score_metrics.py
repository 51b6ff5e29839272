"""Every detection metric of one set of scores, with intervals and with reasons where a metric is undefined."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from deepfake_detectors.evaluation import metrics
from deepfake_detectors.evaluation.bootstrap import Interval, Metric, draw_weights, percentile_interval
from deepfake_detectors.evaluation.metric_set import MetricSet
from deepfake_detectors.evaluation.score_curve import ScoreCurve, gather

__all__ = ["FALSE_POSITIVE_RATES", "LOWER_IS_BETTER", "remarks", "score_intervals", "score_metrics"]

LOWER_IS_BETTER = frozenset({"eer", "brier", "ece"})
FALSE_POSITIVE_RATES = {"tpr@fpr1%": 0.01, "tpr@fpr0.1%": 0.001}


def score_metrics(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float = 0.5,
    groups: Sequence[str] | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> MetricSet:
    """Metrics of one set.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, P(fake); other finite scores leave the calibration metrics undefined.
        threshold: score from which a picture counts as fake.
        groups: `(n,)`, pictures that share source material: whole groups are resampled.
        resamples: bootstrap resamples of the 95 % intervals; 0 for none.
        seed: of the bootstrap.

    Returns:
        `accuracy`, `balanced_accuracy`, `f1_fake`, `f1_real`, `auc`, `ap`, `eer`, `tpr@fpr1%`, `tpr@fpr0.1%`, `brier`,
        `ece`, all in [0, 1]; the positive class of `ap` and of the TPR is fake.

    Raises:
        ValueError: as `metrics.check_scores`.
    """
    truth, values = metrics.check_scores(labels, scores)
    one_class = metrics.one_class_reason(truth)
    absent = {
        name: f"the set holds no {name} picture" for code, name in enumerate(("real", "fake")) if code not in truth
    }
    spread = f"the scores reach from {values.min():.6g} to {values.max():.6g}, which are no probabilities"
    improper = None if 0.0 <= values.min() and values.max() <= 1.0 else spread
    functions: dict[str, tuple[Metric, str | None]] = {
        "accuracy": (lambda t, v: metrics.accuracy(t, v, threshold), None),
        "balanced_accuracy": (lambda t, v: metrics.balanced_accuracy(t, v, threshold), one_class),
        "f1_fake": (lambda t, v: metrics.f1_score(t, v, threshold, "fake"), absent.get("fake")),
        "f1_real": (lambda t, v: metrics.f1_score(t, v, threshold, "real"), absent.get("real")),
        "auc": (metrics.auc, one_class),
        "ap": (metrics.average_precision, one_class),
        "eer": (_equal_error_rate, one_class),
        **{name: (_rate_at(limit), one_class) for name, limit in FALSE_POSITIVE_RATES.items()},
        "brier": (metrics.brier_score, improper),
        "ece": (metrics.expected_calibration_error, improper),
    }
    intervals = score_intervals(truth, values, threshold, groups, resamples, seed) if resamples else {}
    result = MetricSet()
    for name, (function, reason) in functions.items():
        if reason:
            result.add(name, None, reason)
        else:
            result.add(name, function(truth, values), interval=intervals.get(name))
    return result


def score_intervals(
    truth: np.ndarray,
    values: np.ndarray,
    threshold: float = 0.5,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % bootstrap intervals of the metrics of `score_metrics` that have one; arguments as there, checked.

    A resampled ECE is biased upwards (Roelofs et al., 2022), so that its percentiles would mislead: it has none.
    """
    curve = ScoreCurve(truth, values)
    found = gather(
        curve.metrics(weights, threshold, FALSE_POSITIVE_RATES)
        for weights in draw_weights(truth, groups, resamples, seed)
    )
    by = "picture" if groups is None else "group"
    intervals = {name: percentile_interval(values, by=by) for name, values in found.items()}
    return {name: interval for name, interval in intervals.items() if interval is not None}


def remarks(labels: ArrayLike) -> list[str]:
    """What to keep in mind when reading the metrics of these labels `(n,)`."""
    reals = int((np.asarray(labels) == 0).sum())
    return [
        f"{name}: with {reals} real pictures it is the share of fakes found without a single false alarm; "
        f"{round(1 / limit)} reals would be needed to resolve this rate."
        for name, limit in FALSE_POSITIVE_RATES.items()
        if 0 < reals < 1 / limit
    ]


def _equal_error_rate(truth: np.ndarray, values: np.ndarray) -> float | None:
    balance = metrics.equal_error_rate(truth, values)
    return balance[0] if balance else None


def _rate_at(limit: float) -> Callable[[np.ndarray, np.ndarray], float | None]:
    return lambda truth, values: metrics.true_positive_rate_at(truth, values, limit)
