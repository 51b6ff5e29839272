"""Turn scores into probabilities and named thresholds.

Calibration follows Platt, "Probabilistic outputs for support vector machines" (1999). Operating points are thresholds
at which both errors are equal, or at which few reals are called fake, each with its uncertainty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepfake_detectors.evaluation.bootstrap import draw_weights, percentile_interval
from deepfake_detectors.evaluation.curve import ScoreCurve, check_scores, one_class_reason
from deepfake_detectors.evaluation.metrics import require_scikit_learn

__all__ = [
    "EQUAL_ERRORS",
    "FIT_METHODS",
    "LIMITS",
    "OperatingPoints",
    "calibrated_probability",
    "find_operating_points",
    "fit_calibration",
    "fit_platt",
    "logit_differences",
    "measure_threshold",
]

EQUAL_ERRORS = "eer"
LIMITS = {"fpr@1%": 0.01, "fpr@0.1%": 0.001}
FIT_METHODS = ("platt", "temperature")
# A float32 P(fake) cannot get closer to 1 than this; beyond it the logit is unknown.
SATURATION = 2.0**-24


def fit_platt(labels: ArrayLike, differences: ArrayLike) -> dict[str, float]:
    """Fit `P(fake) = sigmoid(scale * difference + bias)`, with equal weight for both classes.

    The weights make 0.5 the right threshold if real and fake are equally likely, regardless of their share in the
    dataset.

    Args:
        labels: `(n,)`, 0 real and 1 fake; images that were not used for training.
        differences: `(n,)`, logit fake - logit real.

    Returns:
        `{"scale", "bias"}`, as in `config.calibration`.

    Raises:
        ValueError: if a class is missing, or if higher scores mean less fake.
        ImportError: if scikit-learn is not installed.
    """
    truth, values = _check_differences(labels, differences)
    from sklearn.linear_model import LogisticRegression

    # In units of their own spread, so that the solver's tolerance fits logits of any size.
    middle, spread = float(values.mean()), float(values.std())
    model = LogisticRegression(class_weight="balanced", C=np.inf, max_iter=1000)
    model.fit((values[:, None] - middle) / spread, truth)
    scale = float(model.coef_[0, 0]) / spread
    bias = float(model.intercept_[0]) - scale * middle
    return {"scale": _positive(scale), "bias": bias}


def fit_calibration(labels: ArrayLike, differences: ArrayLike, method: str = "platt") -> dict[str, float]:
    """Fit a calibration that stays finite even if the classes do not overlap.

    The targets are Platt's, (n + 1) / (n + 2) for a class of n images instead of 1, so that a few perfectly separated
    images do not lead to an infinite scale. Both classes have equal weight, as in `fit_platt`.

    Args:
        labels: `(n,)`, 0 real and 1 fake; images that were not used for training.
        differences: `(n,)`, logit fake - logit real.
        method: `"platt"` fits scale and bias; `"temperature"` only the scale, so that P(fake) = 0.5 does not change
            (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    Returns:
        `{"scale", "bias"}`, as in `config.calibration`.

    Raises:
        ValueError: for another method, if a class is missing, or if higher scores mean less fake.
        ImportError: if scikit-learn is not installed.
    """
    if method not in FIT_METHODS:
        raise ValueError(f"method is {method!r}, allowed are {', '.join(map(repr, FIT_METHODS))}.")
    truth, values = _check_differences(labels, differences)
    from sklearn.linear_model import LogisticRegression

    both = method == "platt"
    middle, spread = float(values.mean()) if both else 0.0, float(values.std())
    sizes = np.bincount(truth, minlength=2)
    target = (sizes[truth] + 1) / (sizes[truth] + 2)
    share = 1 / (2 * sizes[truth])
    # A soft target is one row per class, weighted by it.
    rows = np.tile((values - middle) / spread, 2)[:, None]
    classes, weights = np.concatenate([truth, 1 - truth]), np.concatenate([share * target, share * (1 - target)])
    model = LogisticRegression(C=np.inf, fit_intercept=both, max_iter=1000, tol=1e-8)
    model.fit(rows, classes, sample_weight=weights * truth.size)
    scale = _positive(float(model.coef_[0, 0]) / spread)
    return {"scale": scale, "bias": float(model.intercept_[0]) - scale * middle if both else 0.0}


def logit_differences(probabilities: ArrayLike) -> tuple[np.ndarray, int]:
    """Return logit fake - logit real `(n,)` of P(fake) `(n,)`, and the number too close to 0 or 1 to have one.

    Those are set to 16.6, the largest logit of a float32 probability.

    Raises:
        ValueError: for values that are not probabilities.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.size and not (0.0 <= values.min() and values.max() <= 1.0):
        raise ValueError(
            f"The scores range from {values.min():.6g} to {values.max():.6g}; only probabilities in [0, 1] can be "
            "calibrated."
        )
    kept = np.clip(values, SATURATION, 1.0 - SATURATION)
    return np.log(kept) - np.log1p(-kept), int((kept != values).sum())


def _check_differences(labels: ArrayLike, differences: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    truth, values = check_scores(labels, differences)
    reason = one_class_reason(truth)
    if reason:
        raise ValueError(f"Calibration needs both classes, but {reason}.")
    if values.std() == 0.0:
        raise ValueError(
            f"All {values.size} images have the same score, {values[0]:.6g}; there is nothing to calibrate."
        )
    require_scikit_learn()
    return truth, values


def _positive(scale: float) -> float:
    if scale <= 0:
        raise ValueError(
            f"The fitted scale is {scale:.3g}: on these images higher scores mean less fake. Such a model cannot be "
            "calibrated; train it further, or check the order of its classes."
        )
    return scale


def calibrated_probability(differences: ArrayLike, calibration: dict[str, float]) -> np.ndarray:
    """Return P(fake) `(n,)` in [0, 1] for logit differences `(n,)`."""
    return 1.0 / (1.0 + np.exp(-(calibration["scale"] * np.asarray(differences) + calibration["bias"])))


@dataclass
class OperatingPoints:
    """What `find_operating_points` found.

    Attributes:
        thresholds: name -> `{"value", "low", "high"}`, P(fake) in [0, 1] from which an image counts as fake.
        unavailable: name -> why there is none.
    """

    thresholds: dict[str, dict[str, float | None]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """Name -> threshold, as `config.operating_points` holds them."""
        return {name: float(entry["value"]) for name, entry in self.thresholds.items() if entry["value"] is not None}


def find_operating_points(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> OperatingPoints:
    """Find thresholds of one set of scores, with 95 % bootstrap intervals.

    A limit on the false positive rate is not extrapolated: fewer reals than its inverse cannot show it.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, P(fake) in [0, 1].
        groups: `(n,)`; images with the same value share source material, and whole groups are resampled.
        resamples: of the bootstrap; 0 for no intervals.
        seed: seed of the bootstrap.

    Raises:
        ValueError: as for `check_scores`.
    """
    truth, values = check_scores(labels, scores)
    curve, reals = ScoreCurve(truth, values), int((truth == 0).sum())
    found = OperatingPoints()
    searches: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    if reason := one_class_reason(truth):
        found.unavailable[EQUAL_ERRORS] = reason
    else:
        searches[EQUAL_ERRORS] = curve.equal_error_thresholds
    for name, limit in LIMITS.items():
        if reals < round(1 / limit):
            found.unavailable[name] = (
                f"it needs {round(1 / limit)} real images or more, so that {100 * limit:g} % of them is at least one "
                f"image, but the dataset has {reals}"
            )
        else:
            searches[name] = partial(curve.limit_thresholds, false_positive_rate=limit)
    whole = np.ones((1, truth.size))
    for name, search in searches.items():
        value = float(search(whole)[0])
        if value > 1.0:
            found.unavailable[name] = "too many reals have P(fake) = 1, which no threshold separates from the fakes"
            continue
        drawn = [search(weights) for weights in draw_weights(truth, groups, resamples, seed)] if resamples else []
        found.thresholds[name] = _entry(value, np.minimum(np.concatenate(drawn), 1.0) if drawn else None)
    return found


def measure_threshold(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """Measure `fpr` and `tpr` at a fixed threshold, each `{"value", "low", "high"}`, `None` if the class is absent.

    The arguments are those of `find_operating_points`.
    """
    truth, values = check_scores(labels, scores)
    curve = ScoreCurve(truth, values)
    whole = curve.rates(np.ones((1, truth.size)), threshold)
    drawn = (
        [curve.rates(weights, threshold) for weights in draw_weights(truth, groups, resamples, seed)]
        if resamples
        else []
    )
    result: dict[str, Any] = {}
    for place, name in ((1, "fpr"), (0, "tpr")):
        value = float(whole[place][0])
        resampled = np.concatenate([rates[place] for rates in drawn]) if drawn else None
        result[name] = _entry(None if np.isnan(value) else value, resampled)
    return result


def _entry(value: float | None, resampled: np.ndarray | None) -> dict[str, float | None]:
    interval = percentile_interval(resampled) if resampled is not None and value is not None else None
    return {"value": value, "low": interval.low if interval else None, "high": interval.high if interval else None}
