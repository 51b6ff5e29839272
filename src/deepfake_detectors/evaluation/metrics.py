"""Detection metrics by name: values, 95 % intervals, and reasons where a metric is undefined.

Class 1 is fake, and a higher score means more fake. All numbers based on scores come from `curve.ScoreCurve`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepfake_detectors.evaluation.bootstrap import Interval, draw_weights, percentile_interval
from deepfake_detectors.evaluation.curve import ScoreCurve, check_scores, gather, one_class_reason

__all__ = [
    "FALSE_POSITIVE_RATES",
    "LOWER_IS_BETTER",
    "REAL_NAME",
    "DetectionMetrics",
    "MetricSet",
    "Settings",
    "accuracy",
    "auc",
    "brier_score",
    "category_table",
    "detection_metrics",
    "equal_error_rate",
    "expected_calibration_error",
    "manipulation_table",
    "remarks",
    "require_scikit_learn",
    "score_intervals",
    "score_metrics",
]

REAL_NAME = "real"
LOWER_IS_BETTER = frozenset({"eer", "brier", "ece"})
FALSE_POSITIVE_RATES = {"tpr@fpr1%": 0.01, "tpr@fpr0.1%": 0.001}


@dataclass(frozen=True)
class Settings:
    """Settings chosen by the user.

    Attributes:
        threshold: P(fake) at or above which an image counts as fake.
        resamples: bootstrap resamples for the 95 % intervals; 0 for none.
        seed: seed of the bootstrap and of FakeVLM's random verdicts.
        encoder: folder or Hub id of the sentence encoder for explanations; `None` for no `similarity`.
        spice: whether to run SPICE on explanations.
        answers_of: family whose rule parses answers in words; `None` for whole words.
    """

    threshold: float = 0.5
    resamples: int = 1000
    seed: int = 0
    encoder: str | None = None
    spice: bool = False
    answers_of: str | None = None


class MetricSet:
    """Collects metrics in the format of `results.json`.

    Attributes:
        metrics: name -> `{"value", "low", "high"}`; unrounded floats, or `None` if undefined or not requested.
        undefined: name -> reason why its value is `None`.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, dict[str, float | None]] = {}
        self.undefined: dict[str, str] = {}

    def add(self, name: str, value: float | None, reason: str | None = None, interval: Interval | None = None) -> None:
        """Add one metric.

        Args:
            name: name in the report.
            value: a finite number, or `None`.
            reason: reason for a missing value; required only then.
            interval: its confidence interval.

        Raises:
            ValueError: for a duplicate name, a value that is not finite, or `None` without a reason.
        """
        if name in self.metrics:
            raise ValueError(f"The metric {name!r} already exists.")
        if value is None and reason is None:
            raise ValueError(f"The metric {name!r} has neither a value nor a reason.")
        if value is not None and not math.isfinite(value):
            raise ValueError(f"The metric {name!r} is {value}, expected a finite number, or None and a reason.")
        self.metrics[name] = {
            "value": None if value is None else float(value),
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
        }
        if value is None:
            self.undefined[name] = str(reason)

    def value(self, name: str) -> float | None:
        return self.metrics[name]["value"]

    def to_dict(self) -> dict[str, Any]:
        return {"metrics": self.metrics, "undefined": self.undefined}


@dataclass
class DetectionMetrics:
    """Result of `detection_metrics`. All rates are in [0, 1].

    Attributes:
        num_real: images of class 0.
        num_fake: images of class 1.
        threshold: score at or above which an image counts as fake.
        accuracy: share of correct verdicts at `threshold`.
        auc: area under the ROC curve, or `None` if undefined.
        eer: equal error rate, or `None` if undefined.
        eer_threshold: score at which both error rates are equal, or `None`.
        undefined: metric name -> reason why it is `None`.
    """

    num_real: int
    num_fake: int
    threshold: float
    accuracy: float
    auc: float | None
    eer: float | None
    eer_threshold: float | None
    undefined: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def require_scikit_learn() -> Any:
    """Return `sklearn.metrics`.

    Raises:
        ImportError: if scikit-learn is not installed, with the command to install it.
    """
    try:
        import sklearn.metrics
    except ImportError as error:
        raise ImportError(
            "Metrics need scikit-learn, which is not installed: pip install 'deepfake-detectors[eval]'"
        ) from error
    return sklearn.metrics


def accuracy(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> float:
    """Return the accuracy of the verdicts `score >= threshold` (fake), in [0, 1].

    Raises:
        ValueError: as for `check_scores`.
    """
    truth, values = check_scores(labels, scores)
    return float(((values >= threshold) == truth).mean())


def auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Return the area under the ROC curve in [0, 1], or `None` if one class is absent.

    Raises:
        ValueError: as for `check_scores`.
    """
    truth, values = check_scores(labels, scores)
    return None if one_class_reason(truth) else float(ScoreCurve(truth, values).auc(_once(truth))[0])


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float] | None:
    """Return the equal error rate, where the shares of reals called fake and of fakes called real are equal.

    Returns:
        `(rate in [0, 1], threshold)`, linearly interpolated on the ROC curve, or `None` if one class is absent.

    Raises:
        ValueError: as for `check_scores`.
    """
    truth, values = check_scores(labels, scores)
    if one_class_reason(truth):
        return None
    curve, once = ScoreCurve(truth, values), _once(truth)
    return float(curve.equal_error_rates(once)[0]), float(curve.equal_error_thresholds(once)[0])


def brier_score(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean squared difference of P(fake) and truth, in [0, 1]; lower is better (Brier, 1950).

    Raises:
        ValueError: as for `check_scores`, or for scores that are not probabilities.
    """
    truth, values = _check_probabilities(labels, scores)
    return float(((values - truth) ** 2).mean())


def expected_calibration_error(labels: ArrayLike, scores: ArrayLike, bins: int = 15) -> float:
    """Return the mean gap between P(fake) and the share of fakes, in [0, 1]; lower is better.

    Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015), for P(fake) instead of
    the confidence in the verdict, over `bins` ranges of equal width, weighted by the images in each.

    Raises:
        ValueError: as for `check_scores`, or for scores that are not probabilities, or no bins.
    """
    truth, values = _check_probabilities(labels, scores)
    if bins < 1:
        raise ValueError(f"bins is {bins}, expected 1 or more.")
    place = np.minimum((values * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, weights=values - truth, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


def _check_probabilities(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    truth, values = check_scores(labels, scores)
    if values.min() < 0.0 or values.max() > 1.0:
        raise ValueError(
            f"The scores range from {values.min():.6g} to {values.max():.6g}, but this metric needs probabilities in "
            "[0, 1]."
        )
    return truth, values


def detection_metrics(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> DetectionMetrics:
    """Compute accuracy, AUC and EER of one set of images.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, higher means more fake; P(fake) if `threshold` is used.
        threshold: score at or above which an image counts as fake.

    Returns:
        The metrics; those that are undefined for a single class are `None`, with the reason in `undefined`.

    Raises:
        ValueError: as for `check_scores`.
    """
    truth, values = check_scores(labels, scores)
    balance = equal_error_rate(truth, values)
    reason = one_class_reason(truth)
    return DetectionMetrics(
        num_real=int((truth == 0).sum()),
        num_fake=int((truth == 1).sum()),
        threshold=float(threshold),
        accuracy=accuracy(truth, values, threshold),
        auc=auc(truth, values),
        eer=balance[0] if balance else None,
        eer_threshold=balance[1] if balance else None,
        undefined={"auc": reason, "eer": reason} if reason else {},
    )


def manipulation_table(
    labels: ArrayLike, scores: ArrayLike, manipulations: ArrayLike, threshold: float = 0.5
) -> dict[str, dict[str, Any]]:
    """Compute one row per manipulation.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, higher means more fake.
        manipulations: `(n,)`, the method used for each image; any value for real ones.
        threshold: score at or above which an image counts as fake.

    Returns:
        Name -> `{"count", "accuracy", "auc"}`. Accuracy only includes this method's fakes; AUC ranks them against all
        reals, and is `None` without reals. The row `"real"` has the accuracy on the reals.
    """
    truth, values, methods = _check_names(labels, scores, manipulations, "manipulations")
    real = truth == 0
    table: dict[str, dict[str, Any]] = {}
    if real.any():
        table[REAL_NAME] = {
            "count": int(real.sum()),
            "accuracy": accuracy(truth[real], values[real], threshold),
            "auc": None,
        }
    for method in sorted(set(methods[~real].tolist())):
        chosen = ~real & (methods == method)
        against = chosen | real
        table[method] = {
            "count": int(chosen.sum()),
            "accuracy": accuracy(truth[chosen], values[chosen], threshold),
            "auc": auc(truth[against], values[against]),
        }
    return table


def category_table(
    labels: ArrayLike, scores: ArrayLike, categories: ArrayLike, threshold: float = 0.5
) -> dict[str, dict[str, Any]]:
    """Compute one row per category with its own reals and fakes; arguments as in `manipulation_table`.

    Returns:
        Name -> `{"count", "real", "fake", "accuracy", "auc"}`; AUC is `None` if the category has only one class.
    """
    truth, values, names = _check_names(labels, scores, categories, "categories")
    table: dict[str, dict[str, Any]] = {}
    for name in sorted(set(names.tolist())):
        chosen = names == name
        fakes = int(truth[chosen].sum())
        table[name] = {
            "count": int(chosen.sum()),
            "real": int(chosen.sum()) - fakes,
            "fake": fakes,
            "accuracy": accuracy(truth[chosen], values[chosen], threshold),
            "auc": auc(truth[chosen], values[chosen]),
        }
    return table


def _check_names(
    labels: ArrayLike, scores: ArrayLike, names: ArrayLike, what: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, values = check_scores(labels, scores)
    given = np.asarray(names, dtype=object)
    if given.shape != truth.shape:
        raise ValueError(f"{what} has shape {given.shape}, expected one name per image, {truth.shape}.")
    return truth, values, given


def score_metrics(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float = 0.5,
    groups: Sequence[str] | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> MetricSet:
    """Compute all metrics of one set of images.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, P(fake); for other finite scores the calibration metrics are undefined.
        threshold: score at or above which an image counts as fake.
        groups: `(n,)`; images with the same value share source material, and whole groups are resampled.
        resamples: bootstrap resamples for the 95 % intervals; 0 for none.
        seed: seed of the bootstrap.

    Returns:
        `accuracy`, `balanced_accuracy`, `f1_fake`, `f1_real`, `auc`, `ap`, `eer`, `tpr@fpr1%`, `tpr@fpr0.1%`, `brier`,
        `ece`, all in [0, 1]; the positive class of `ap` and of the TPR is fake.

    Raises:
        ValueError: as for `check_scores`.
    """
    truth, values = check_scores(labels, scores)
    proper = 0.0 <= values.min() and values.max() <= 1.0
    whole = ScoreCurve(truth, values).metrics(_once(truth), threshold, FALSE_POSITIVE_RATES)
    found: dict[str, float] = {name: float(value[0]) for name, value in whole.items()}
    if proper:
        found["ece"] = expected_calibration_error(truth, values)
    reasons = _reasons(truth, values, proper)
    intervals = score_intervals(truth, values, threshold, groups, resamples, seed) if resamples else {}
    result = MetricSet()
    for name in (*whole, "ece"):
        reason = reasons.get(name)
        result.add(name, None if reason else found[name], reason, None if reason else intervals.get(name))
    return result


def _reasons(truth: np.ndarray, values: np.ndarray, proper: bool) -> dict[str, str]:
    """Return metric -> why it is undefined."""
    reasons: dict[str, str] = {}
    if one_class := one_class_reason(truth):
        names = ("balanced_accuracy", "auc", "ap", "eer", *FALSE_POSITIVE_RATES)
        absent = "fake" if truth.sum() == 0 else "real"
        reasons = {**dict.fromkeys(names, one_class), f"f1_{absent}": f"the set has no {absent} image"}
    if not proper:
        spread = f"the scores range from {values.min():.6g} to {values.max():.6g}, which are not probabilities"
        reasons |= dict.fromkeys(("brier", "ece"), spread)
    return reasons


def score_intervals(
    truth: np.ndarray,
    values: np.ndarray,
    threshold: float = 0.5,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return 95 % bootstrap intervals of the metrics of `score_metrics` that have one; arguments as there.

    A resampled ECE is biased upwards (Roelofs et al., 2022), so its percentiles would be misleading and are left out.
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
    """Return caveats for the metrics of these labels `(n,)`."""
    reals = int((np.asarray(labels) == 0).sum())
    return [
        f"{name}: with {reals} real images it is the share of fakes found without any false alarm; resolving this "
        f"rate needs {round(1 / limit)} real images."
        for name, limit in FALSE_POSITIVE_RATES.items()
        if 0 < reals < 1 / limit
    ]


def _once(truth: np.ndarray) -> np.ndarray:
    """Return weights `(1, n)` that count every image once."""
    return np.ones((1, truth.size))
