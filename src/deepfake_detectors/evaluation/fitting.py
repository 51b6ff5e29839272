"""Fit calibration and operating points with their uncertainty, and save them with the checkpoint."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers.utils import CONFIG_NAME

from deepfake_detectors.evaluation.bands import DecisionBand
from deepfake_detectors.evaluation.calibration import (
    EQUAL_ERRORS,
    FIT_METHODS,
    LIMITS,
    OperatingPoints,
    calibrated_probability,
    find_operating_points,
    fit_calibration,
    logit_differences,
    measure_threshold,
)
from deepfake_detectors.evaluation.curve import check_scores
from deepfake_detectors.evaluation.metrics import Settings, brier_score, expected_calibration_error
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups, labels_of, scores_of
from deepfake_detectors.files import read_json_object
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.modeling.configuration_chat_vlm import FAMILY_FIELD
from deepfake_detectors.outputs import lock_beside, write_json, written_whole

__all__ = [
    "CALIBRATION_FILE",
    "KEEP",
    "METHODS",
    "Calibration",
    "calibrate",
    "check_target",
    "checkpoint_folder",
    "composed",
    "moved_threshold",
    "save_calibrated",
    "threshold_value",
]

KEEP = "keep"
METHODS = (*FIT_METHODS, KEEP)
CALIBRATION_FILE = "calibration.json"
# They have numbers of the old checkpoint: cards are rendered again for publishing.
STALE = ("README.md", "results.json", "validation.json")


@dataclass
class Calibration:
    """A fit and its source.

    Attributes:
        method: `"platt"`, `"temperature"`, or `"keep"`, which does not change the scores.
        fitted: `{"scale", "bias"}` on the logit difference of the fitted scores.
        points: thresholds on the calibrated P(fake).
        source: the data it was fitted on: `set`, `num_real`, `num_fake`, `saturated`.
        same_rows: whether it is measured on the images it was fitted on.
        shared_groups: number of groups of source material in both parts.
    """

    method: str
    fitted: dict[str, float]
    points: OperatingPoints
    source: dict[str, Any]
    same_rows: bool
    shared_groups: int = 0
    remarks: list[str] = field(default_factory=list)

    def apply(self, rows: Sequence[Prediction]) -> list[Prediction]:
        """Return the rows with calibrated scores."""
        if self.method == KEEP:
            return list(rows)
        differences, _ = logit_differences(scores_of(rows))
        scores = calibrated_probability(differences, self.fitted)
        return [replace(row, score=float(score)) for row, score in zip(rows, scores, strict=True)]

    def describe(self, rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
        """Return the entry for `results.json`, measured on `rows` (uncalibrated)."""
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
            "measured_on": "the images it was fitted on" if self.same_rows else "other images",
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
        method: one of `METHODS`. Both classes have equal weight, so that 0.5 is the right threshold if real and fake
            are equally likely, regardless of their share among these images.
        fit_rows: predictions with P(fake) as scores, for images that the model was not trained on.
        name: name of their dataset.
        rows: predictions to measure it on; `None` means `fit_rows`.
        settings: settings of the bootstrap.

    Raises:
        ValueError: for an unknown method, a single class, scores that are not probabilities or of which higher ones
            mean less fake, and images in both parts.
    """
    if method not in METHODS:
        raise ValueError(f"`fit` is {method!r}, allowed are {', '.join(METHODS)}.")
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
            "Fitted and measured on the same images: ece, brier and the rates at the operating points are better "
            "than on new ones. Fit on others with `fit_split` or `fit_predictions`"
        )
    else:
        _check_apart(fit_rows, rows, found)
        if name.endswith("/train"):
            found.remarks.append(
                "Fitted on a training split: if the model was trained on it, the fit is overconfident"
            )
    if saturated:
        found.remarks.append(f"{saturated} scores are 0 or 1 to the last digit of a float32, so their order is lost")
    return found


def composed(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Return the calibration equal to `first` (the model's) followed by `second` (fitted on its scores)."""
    return {
        "scale": second["scale"] * first["scale"],
        "bias": second["scale"] * first["bias"] + second["bias"],
    }


def moved_threshold(threshold: float, fitted: Mapping[str, float]) -> float:
    """Return the threshold that separates the same images after calibration as `threshold` before."""
    if threshold in (0.0, 1.0):
        return threshold
    return float(calibrated_probability(math.log(threshold) - math.log1p(-threshold), dict(fitted)))


def _check_apart(fit_rows: Sequence[Prediction], rows: Sequence[Prediction], found: Calibration) -> None:
    both = {row.id for row in fit_rows} & {row.id for row in rows}
    if both:
        raise ValueError(
            f"{len(both)} images are used both for fitting and for measuring, such as {min(both)}. Keep them apart, "
            "or leave out `fit_split` and `fit_predictions` to use one dataset for both."
        )
    groups = ({row.group_id or row.video_id for row in side} - {None} for side in (fit_rows, rows))
    shared = set.intersection(*groups)
    if shared:
        found.shared_groups = len(shared)
        found.remarks.append(
            f"{len(shared)} groups of shared source material are in both parts, such as {min(map(str, shared))}: the "
            "measured images are not new to the fit"
        )


def threshold_value(threshold: float | str, points: Mapping[str, float], fit: str | None) -> float | None:
    """Return the value of a threshold; `None` for an operating point that is not fitted yet.

    Args:
        threshold: a number in [0, 1], or the name of an operating point.
        points: the model's operating points.
        fit: the method of the fit; if given, names refer to the points that it fits.

    Raises:
        ValueError: for a number out of range, or an unknown name.
    """
    if isinstance(threshold, str):
        fitted = (EQUAL_ERRORS, *LIMITS)
        if fit is not None and threshold in fitted:
            return None
        if fit is None and threshold in points:
            return float(points[threshold])
        known = fitted if fit is not None else tuple(points)
        told = f"Known: {', '.join(known)}." if known else "There are none: pass a number, or fit them (`fit`)."
        raise ValueError(f"`threshold` is {threshold!r}, neither a number nor an operating point. {told}")
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"`threshold` is {threshold}, expected a number in [0, 1] or an operating point.")
    return float(threshold)


def checkpoint_folder(source: str) -> Path:
    """Return the folder of a checkpoint, downloaded from the Hub or its cache if `source` is an id.

    Raises:
        OSError: if it cannot be found.
        ValueError: for a folder without a config, such as LoRA deltas.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = Path(snapshot_download(source))
    if not (folder / CONFIG_NAME).is_file():
        raise ValueError(
            f"{folder} does not contain a {CONFIG_NAME} for the calibration. For a LoRA adapter, merge it into its "
            "base first."
        )
    return folder


def check_target(source: str | None, target: Path) -> None:
    """Refuse a target before any image is scored.

    Args:
        source: the model given by the user; `None` for the default of this package.
        target: folder for the calibrated checkpoint.

    Raises:
        ValueError: unless the target is new, an empty folder, or the model's own folder.
    """
    if target.exists() and not target.is_dir():
        raise ValueError(f"`save_to` {target} is a file; it must be a folder.")
    own = source is not None and Path(source).is_dir() and Path(source).resolve() == target.resolve()
    if target.is_dir() and any(target.iterdir()) and not own:
        raise ValueError(
            f"`save_to` {target} exists and is not the folder of the model. Use a new folder, or the model's own to "
            "change it in place."
        )


def save_calibrated(
    source: str,
    target: Path,
    calibration: Calibration | None,
    record: Mapping[str, Any] | None,
    band: DecisionBand | None = None,
    head: str | None = None,
    family: str | None = None,
) -> Path:
    """Write the checkpoint with the fit in its config, and `calibration.json` next to it.

    The calibration is applied after the checkpoint's own. Existing operating points are kept and moved so that they
    separate the same images as before, unless one with the same name was fitted.

    Args:
        source: the checkpoint's folder or Hub id, whose scores were fitted.
        target: a new or empty folder, or the checkpoint's own, in which only the config is changed.
        calibration: the fit; `None` if only a band was fitted.
        record: details of the fit, such as the intervals, for `calibration.json`.
        band: the decision band. An existing band is removed if the scores are calibrated again.
        head: the fitted head, for a checkpoint with several.
        family: family of a stock folder, as in `pipelines.pipeline`, saved in the new config.

    Returns:
        The folder.

    Raises:
        OSError, ValueError: as for `checkpoint_folder` and `check_target`; or if another process is writing the
            target.
    """
    folder = checkpoint_folder(source)
    check_target(source, target)
    fields = read_json_object(folder / CONFIG_NAME)
    checkpoint = open_checkpoint(source, family)
    config = checkpoint.load_config()
    if checkpoint.stock:  # whose library class lacks these fields: record the family
        fields[FAMILY_FIELD] = checkpoint.family.name
    own = config if not hasattr(config, "of_head") else _HeadFields(config, head)
    stored: dict[str, Any] = {}
    if calibration is not None:
        named = dict(own.operating_points)
        if calibration.method != KEEP:
            named = {name: moved_threshold(value, calibration.fitted) for name, value in named.items()}
            stored["decision_band"] = None
        stored["calibration"] = composed(own.calibration, calibration.fitted)
        stored["operating_points"] = {**named, **calibration.points.values}
    if band is not None:
        stored["decision_band"] = band.to_config()
    if isinstance(own, _HeadFields):
        fields = own.with_fields(fields, stored)
    else:
        fields = {**fields, **stored}
    known = {"fit": dict(record)} if record is not None else {}
    content = {CONFIG_NAME: fields, CALIBRATION_FILE: {**stored, **known}}
    if folder.resolve() == target.resolve():
        # The config last, so that the file next to it always explains its contents.
        with lock_beside(folder):
            for name in reversed(content):
                write_json(folder / name, content[name])
        return folder
    with written_whole(target) as part:
        # Links of the Hub's cache are followed, so that the copy is self-contained.
        left_out = shutil.ignore_patterns(*STALE, ".*", "__pycache__", "__init__.py")
        shutil.copytree(folder, part, ignore=left_out, dirs_exist_ok=True)
        for name, value in content.items():
            write_json(part / name, value)
    return target


class _HeadFields:
    """Return a config's fields for one of several heads; those of the default head are at the top level."""

    def __init__(self, config: Any, head: str | None) -> None:
        self.head = config.require_head(head)
        self.is_default = self.head == config.default_head
        self.calibration = config.of_head(head, "calibration")
        self.operating_points = config.of_head(head, "operating_points")

    def with_fields(self, fields: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config's fields with those of this head replaced."""
        if self.is_default:
            return {**fields, **stored}
        heads = {**fields["heads"], self.head: {**fields["heads"][self.head], **stored}}
        return {**fields, "heads": heads}
