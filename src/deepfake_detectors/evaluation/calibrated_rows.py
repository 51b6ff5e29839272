"""Calibrate predictions: fit on some pictures, apply to others, and say what it changed and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deepfake_detectors.evaluation.calibration import (
    FIT_METHODS,
    calibrated_probability,
    fit_calibration,
    logit_differences,
)
from deepfake_detectors.evaluation.metrics import brier_score, check_scores, expected_calibration_error
from deepfake_detectors.evaluation.operating_points import OperatingPoints, find_operating_points, measure_threshold
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups, labels_of, scores_of
from deepfake_detectors.evaluation.settings import Settings

__all__ = ["KEEP", "METHODS", "Calibration", "calibrate", "composed", "moved_threshold"]

KEEP = "keep"
METHODS = (*FIT_METHODS, KEEP)


@dataclass
class Calibration:
    """A fit and where it comes from.

    Attributes:
        method: `"platt"`, `"temperature"`, or `"keep"`, which leaves the scores as they are.
        fitted: `{"scale", "bias"}` on the logit difference of the scores that were fitted.
        points: thresholds on the calibrated P(fake).
        source: what it was fitted on: `set`, `num_real`, `num_fake`, `saturated`.
        same_rows: whether it is measured on the pictures it was fitted on.
        shared_groups: how many groups of source material lie on both sides.
    """

    method: str
    fitted: dict[str, float]
    points: OperatingPoints
    source: dict[str, Any]
    same_rows: bool
    shared_groups: int = 0
    remarks: list[str] = field(default_factory=list)

    def apply(self, rows: Sequence[Prediction]) -> list[Prediction]:
        """The rows with calibrated scores."""
        if self.method == KEEP:
            return list(rows)
        differences, _ = logit_differences(scores_of(rows))
        scores = calibrated_probability(differences, self.fitted)
        return [replace(row, score=float(score)) for row, score in zip(rows, scores, strict=True)]

    def describe(self, rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
        """What of this goes into `results.json`, measured on `rows` (uncalibrated)."""
        truth, before = labels_of(rows), scores_of(rows)
        after = scores_of(self.apply(rows))
        _, groups = bootstrap_groups(rows)
        bootstrap = (groups, settings.resamples, settings.seed)
        points = {
            name: {"threshold": entry, **measure_threshold(truth, after, value, *bootstrap)}
            for (name, entry), value in zip(self.points.thresholds.items(), self.points.values.values(), strict=True)
        }
        return {
            "method": self.method,
            **self.fitted,
            "fitted_on": self.source,
            "measured_on": "the pictures it was fitted on" if self.same_rows else "other pictures",
            "brier": {"before": brier_score(truth, before), "after": brier_score(truth, after)},
            "ece": {
                "before": expected_calibration_error(truth, before),
                "after": expected_calibration_error(truth, after),
            },
            "operating_points": points,
            "unavailable": self.points.unavailable,
            "remarks": self.remarks,
        }


def calibrate(
    method: str, fit_rows: Sequence[Prediction], name: str, rows: Sequence[Prediction] | None, settings: Settings
) -> Calibration:
    """Fit calibration and operating points.

    Args:
        method: one of `METHODS`. Both classes weigh alike, so that 0.5 is the right threshold where real and fake are
            equally likely, whatever their share among these pictures.
        fit_rows: with P(fake) as scores; pictures that the model was not trained on.
        name: of their set.
        rows: what it is measured on; `None` if that is `fit_rows`.
        settings: of the bootstrap.

    Raises:
        ValueError: for an unknown method, one class, scores that are no probabilities or rank backwards, and for
            pictures that are on both sides.
    """
    if method not in METHODS:
        raise ValueError(f"--fit is {method!r}, allowed are {', '.join(METHODS)}.")
    truth, scores = check_scores(labels_of(fit_rows), scores_of(fit_rows))
    differences, saturated = logit_differences(scores)
    fitted = {"scale": 1.0, "bias": 0.0} if method == KEEP else fit_calibration(truth, differences, method)
    after = scores if method == KEEP else calibrated_probability(differences, fitted)
    _, groups = bootstrap_groups(fit_rows)
    points = find_operating_points(truth, after, groups, settings.resamples, settings.seed)
    fakes = int(truth.sum())
    source = {"set": name, "num_real": len(truth) - fakes, "num_fake": fakes, "saturated": saturated}
    found = Calibration(method, fitted, points, source, rows is None)
    if rows is None:
        found.remarks.append(
            "Fitted and measured on the same pictures: ece, brier and the rates at the operating points are better "
            "than they will be on new ones. Fit on others with --fit-split or --fit-predictions"
        )
    else:
        _check_apart(fit_rows, rows, found)
        if name.endswith("/train"):
            found.remarks.append(
                "Fitted on a training split: if the model was trained on it, the fit is too sure of itself"
            )
    if saturated:
        found.remarks.append(
            f"{saturated} scores are 0 or 1 to the last digit of a float32, so that their order is lost"
        )
    return found


def composed(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """The calibration that does what `first` (of the model) and then `second` (fitted on its scores) do."""
    return {
        "scale": second["scale"] * first["scale"],
        "bias": second["scale"] * first["bias"] + second["bias"],
    }


def moved_threshold(threshold: float, fitted: Mapping[str, float]) -> float:
    """The threshold that, after calibration, parts the same pictures as `threshold` did before."""
    if threshold in (0.0, 1.0):
        return threshold
    return float(calibrated_probability(math.log(threshold) - math.log1p(-threshold), dict(fitted)))


def _check_apart(fit_rows: Sequence[Prediction], rows: Sequence[Prediction], found: Calibration) -> None:
    both = {row.id for row in fit_rows} & {row.id for row in rows}
    if both:
        raise ValueError(
            f"{len(both)} pictures are fitted on and measured on, the first being {min(both)}. Keep them apart, or "
            "leave out --fit-split and --fit-predictions to have it labelled as one set."
        )
    groups = ({row.group_id or row.video_id for row in side} - {None} for side in (fit_rows, rows))
    shared = set.intersection(*groups)
    if shared:
        found.shared_groups = len(shared)
        found.remarks.append(
            f"{len(shared)} groups of shared source material are on both sides, such as {min(map(str, shared))}: the "
            "pictures measured on are not new to the fit"
        )
