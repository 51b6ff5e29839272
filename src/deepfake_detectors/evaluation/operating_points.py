"""Named thresholds: where both errors are equal, or where few reals are called fake; each with its uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepfake_detectors.evaluation.bootstrap import draw_weights, percentile_interval
from deepfake_detectors.evaluation.metrics import check_scores, one_class_reason
from deepfake_detectors.evaluation.score_curve import ScoreCurve

__all__ = ["EQUAL_ERRORS", "LIMITS", "OperatingPoints", "find_operating_points", "measure_threshold"]

EQUAL_ERRORS = "eer"
LIMITS = {"fpr@1%": 0.01, "fpr@0.1%": 0.001}


@dataclass
class OperatingPoints:
    """What `find_operating_points` found.

    Attributes:
        thresholds: name -> `{"value", "low", "high"}`, P(fake) in [0, 1] from which a picture counts as fake.
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
    """Thresholds of one set of scores, with 95 % bootstrap intervals.

    A limit on the false positive rate is not extrapolated: fewer reals than its inverse cannot show it.

    Args:
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, P(fake) in [0, 1].
        groups: `(n,)`, pictures that share source material: whole groups are resampled.
        resamples: of the bootstrap; 0 for no intervals.
        seed: of the bootstrap.

    Raises:
        ValueError: as `check_scores`.
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
                f"it needs {round(1 / limit)} real pictures or more, so that {100 * limit:g} % of them are a picture, "
                f"but the set holds {reals}"
            )
        else:
            searches[name] = partial(curve.limit_thresholds, false_positive_rate=limit)
    whole = np.ones((1, truth.size))
    for name, search in searches.items():
        value = float(search(whole)[0])
        if value > 1.0:
            found.unavailable[name] = "too many reals have P(fake) = 1, which no threshold parts from the fakes"
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
    """`fpr` and `tpr` at a fixed threshold, each `{"value", "low", "high"}`, `None` where the class is absent.

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
