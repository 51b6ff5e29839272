"""Detection metrics, by scikit-learn where it has them. Class 1 is fake, and a higher score means more fake."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "DetectionMetrics",
    "accuracy",
    "auc",
    "average_precision",
    "balanced_accuracy",
    "brier_score",
    "category_table",
    "check_scores",
    "detection_metrics",
    "equal_error_rate",
    "expected_calibration_error",
    "f1_score",
    "manipulation_table",
    "one_class_reason",
    "require_scikit_learn",
    "true_positive_rate_at",
]

REAL_NAME = "real"


@dataclass
class DetectionMetrics:
    """Result of `detection_metrics`. All rates lie in [0, 1].

    Attributes:
        num_real: pictures of class 0.
        num_fake: pictures of class 1.
        threshold: score from which a picture counts as fake.
        accuracy: share of right verdicts at `threshold`.
        auc: area under the ROC curve, or `None` where it is undefined.
        eer: equal error rate, or `None` where it is undefined.
        eer_threshold: score at which both error rates are equal, or `None`.
        undefined: metric name -> why it is `None`.
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
        ImportError: if scikit-learn is not installed, with the command that installs it.
    """
    try:
        import sklearn.metrics
    except ImportError as error:
        raise ImportError(
            "Metrics need scikit-learn, which is not installed: pip install 'deepfake-detectors[eval]'"
        ) from error
    return sklearn.metrics


def check_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as int64 and scores as float64 arrays of shape `(n,)`.

    Raises:
        ValueError: for an empty set, different lengths, labels other than 0 and 1, or scores that are not finite.
    """
    truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(f"labels has shape {truth.shape} and scores {values.shape}, expected the same (n,).")
    if truth.size == 0:
        raise ValueError("There is nothing to evaluate: labels and scores are empty.")
    strange = sorted(set(truth.tolist()) - {0, 1})
    if strange:
        raise ValueError(f"labels holds {strange[:5]}, expected 0 (real) and 1 (fake) only.")
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        raise ValueError(
            f"{broken.size} of {values.size} scores are not finite, the first at index {broken[0]}. "
            "A model that returns NaN cannot be ranked; find out why before scoring it."
        )
    return truth.astype(np.int64), values


def accuracy(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> float:
    """Share of pictures whose verdict `score >= threshold` (fake) is right, in [0, 1]."""
    truth, values = check_scores(labels, scores)
    return float(require_scikit_learn().accuracy_score(truth, values >= threshold))


def auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve in [0, 1], or `None` where one class is absent: there is nothing to rank."""
    truth, values = check_scores(labels, scores)
    if one_class_reason(truth):
        return None
    return float(require_scikit_learn().roc_auc_score(truth, values))


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float] | None:
    """Error rate at the threshold where as many reals are called fake as fakes are called real.

    Returns:
        `(rate in [0, 1], threshold)`, linearly interpolated on the ROC curve, or `None` where one class is absent.
    """
    truth, values = check_scores(labels, scores)
    if one_class_reason(truth):
        return None
    false_positive, true_positive, thresholds = require_scikit_learn().roc_curve(
        truth, values, drop_intermediate=False
    )
    thresholds[0] = values.max()  # scikit-learn starts the curve at infinity, which cannot be interpolated
    gap = (1 - true_positive) - false_positive  # falls from 1 to -1 along the curve
    after = int(np.argmax(gap <= 0))
    weight = gap[after - 1] / (gap[after - 1] - gap[after])
    rate = false_positive[after - 1] + weight * (false_positive[after] - false_positive[after - 1])
    threshold = thresholds[after - 1] + weight * (thresholds[after] - thresholds[after - 1])
    return float(rate), float(threshold)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Average precision in [0, 1] with fake as the positive class, or `None` where one class is absent."""
    truth, values = check_scores(labels, scores)
    if one_class_reason(truth):
        return None
    return float(require_scikit_learn().average_precision_score(truth, values))


def balanced_accuracy(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> float | None:
    """Mean of the accuracies on reals and on fakes, in [0, 1], or `None` where one class is absent."""
    truth, values = check_scores(labels, scores)
    if one_class_reason(truth):
        return None
    return float(require_scikit_learn().balanced_accuracy_score(truth, values >= threshold))


def f1_score(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5, positive: str = "fake") -> float | None:
    """F1 in [0, 1] of one class, or `None` where the set holds none of it.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, higher means more fake.
        threshold: score from which a picture counts as fake.
        positive: `"fake"` or `"real"`; the two F1 differ.

    Raises:
        ValueError: as `check_scores`, or for another class.
    """
    truth, values = check_scores(labels, scores)
    if positive not in ("fake", REAL_NAME):
        raise ValueError(f"positive is {positive!r}, expected 'fake' or 'real'.")
    wanted = int(positive == "fake")
    if not (truth == wanted).any():
        return None
    said = (values >= threshold).astype(np.int64)
    return float(require_scikit_learn().f1_score(truth, said, pos_label=wanted))


def true_positive_rate_at(labels: ArrayLike, scores: ArrayLike, false_positive_rate: float) -> float | None:
    """Largest share of fakes found while at most `false_positive_rate` of the reals are called fake.

    Not interpolated: with fewer than `1 / false_positive_rate` reals it is the share found without any false alarm.

    Returns:
        In [0, 1], or `None` where one class is absent.
    """
    truth, values = check_scores(labels, scores)
    if not 0.0 <= false_positive_rate <= 1.0:
        raise ValueError(f"false_positive_rate is {false_positive_rate}, expected a share in [0, 1].")
    if one_class_reason(truth):
        return None
    false_positive, true_positive, _ = require_scikit_learn().roc_curve(truth, values, drop_intermediate=False)
    return float(true_positive[false_positive <= false_positive_rate].max())


def brier_score(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean squared difference of P(fake) and truth, in [0, 1]; lower is better (Brier, 1950).

    Raises:
        ValueError: as `check_scores`, or for scores that are no probabilities.
    """
    truth, values = _check_probabilities(labels, scores)
    return float(require_scikit_learn().mean_squared_error(truth, values))


def expected_calibration_error(labels: ArrayLike, scores: ArrayLike, bins: int = 15) -> float:
    """Mean gap between P(fake) and the share of fakes, in [0, 1]; lower is better.

    Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015), for P(fake) instead of
    the confidence in the verdict, over `bins` ranges of equal width, weighted by the pictures in each.

    Raises:
        ValueError: as `check_scores`, or for scores that are no probabilities, or no bins.
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
            f"The scores reach from {values.min():.6g} to {values.max():.6g}, but this metric needs probabilities in "
            "[0, 1]."
        )
    return truth, values


def detection_metrics(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> DetectionMetrics:
    """Accuracy, AUC and EER of one set of pictures.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, higher means more fake; P(fake) where `threshold` is to mean anything.
        threshold: score from which a picture counts as fake.

    Returns:
        The metrics; those a one-class set leaves undefined are `None`, with the reason in `undefined`.

    Raises:
        ValueError: as `check_scores`.
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
    """One row per manipulation.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, higher means more fake.
        manipulations: `(n,)`, the method that made each picture; anything for real ones.
        threshold: score from which a picture counts as fake.

    Returns:
        Name -> `{"count", "accuracy", "auc"}`. Accuracy counts this method's fakes only; AUC ranks them against all
        reals, and is `None` where there are no reals. The row `"real"` has the accuracy on the reals.
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
    """One row per category, of its own reals and fakes; the arguments as in `manipulation_table`.

    Returns:
        Name -> `{"count", "real", "fake", "accuracy", "auc"}`; AUC is `None` where the category holds one class.
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
        raise ValueError(f"{what} has shape {given.shape}, expected one name per picture, {truth.shape}.")
    return truth, values, given


def one_class_reason(truth: np.ndarray) -> str | None:
    """Why ranking metrics are undefined on these labels, or `None` where they are defined."""
    if truth.all():
        return "the set holds no real picture, so there is nothing to rank the fakes against"
    if not truth.any():
        return "the set holds no fake picture, so there is nothing to rank the reals against"
    return None
