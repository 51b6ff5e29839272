"""Fit calibration and operating points on predictions, say how sure the fit is, and store it with the checkpoint."""

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
# They state numbers of the checkpoint as it was: a card is rendered anew when it is published.
STALE = ("README.md", "results.json", "validation.json")


@dataclass
class Calibration:
    """A fit and where it comes from.

    Attributes:
        method: `"platt"`, `"temperature"`, or `"keep"`, which leaves the scores as they are.
        fitted: `{"scale", "bias"}` on the logit difference of the scores that were fitted.
        points: thresholds on the calibrated P(fake).
        source: what it was fitted on: `set`, `num_real`, `num_fake`, `saturated`.
        same_rows: whether it is measured on the images it was fitted on.
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
        """Return the rows with calibrated scores."""
        if self.method == KEEP:
            return list(rows)
        differences, _ = logit_differences(scores_of(rows))
        scores = calibrated_probability(differences, self.fitted)
        return [replace(row, score=float(score)) for row, score in zip(rows, scores, strict=True)]

    def describe(self, rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
        """Return what of this goes into `results.json`, measured on `rows` (uncalibrated)."""
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
        method: one of `METHODS`. Both classes weigh alike, so that 0.5 is the right threshold where real and fake are
            equally likely, whatever their share among these images.
        fit_rows: with P(fake) as scores; images that the model was not trained on.
        name: of their set.
        rows: what it is measured on; `None` if that is `fit_rows`.
        settings: of the bootstrap.

    Raises:
        ValueError: for an unknown method, one class, scores that are not probabilities or rank backwards, and for
            images that are on both sides.
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
            "than they will be on new ones. Fit on others with `fit_split` or `fit_predictions`"
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
    """Return the calibration that does what `first` (of the model) and then `second` (fitted on its scores) do."""
    return {
        "scale": second["scale"] * first["scale"],
        "bias": second["scale"] * first["bias"] + second["bias"],
    }


def moved_threshold(threshold: float, fitted: Mapping[str, float]) -> float:
    """Return the threshold that, after calibration, parts the same images as `threshold` did before."""
    if threshold in (0.0, 1.0):
        return threshold
    return float(calibrated_probability(math.log(threshold) - math.log1p(-threshold), dict(fitted)))


def _check_apart(fit_rows: Sequence[Prediction], rows: Sequence[Prediction], found: Calibration) -> None:
    both = {row.id for row in fit_rows} & {row.id for row in rows}
    if both:
        raise ValueError(
            f"{len(both)} images are fitted on and measured on, the first being {min(both)}. Keep them apart, or "
            "leave out `fit_split` and `fit_predictions` to have it labelled as one set."
        )
    groups = ({row.group_id or row.video_id for row in side} - {None} for side in (fit_rows, rows))
    shared = set.intersection(*groups)
    if shared:
        found.shared_groups = len(shared)
        found.remarks.append(
            f"{len(shared)} groups of shared source material are on both sides, such as {min(map(str, shared))}: the "
            "images measured on are not new to the fit"
        )


def threshold_value(threshold: float | str, points: Mapping[str, float], fit: str | None) -> float | None:
    """Return the number that a threshold means; `None` where it names an operating point that is yet to be fitted.

    Args:
        threshold: a number in [0, 1], or the name of an operating point.
        points: the model's operating points.
        fit: the method of the fit; with one, names are those of the points that it fits.

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
        told = f"Known: {', '.join(known)}." if known else "None are known here: give a number, or fit them (`fit`)."
        raise ValueError(f"`threshold` is {threshold!r}, neither a number nor an operating point. {told}")
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"`threshold` is {threshold}, expected a number in [0, 1] or an operating point.")
    return float(threshold)


def checkpoint_folder(source: str) -> Path:
    """Return the folder of a checkpoint, fetched from the Hub's cache where `source` is an id.

    Raises:
        OSError: if it can be reached neither here nor there.
        ValueError: for a folder without a config, such as LoRA deltas.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = Path(snapshot_download(source))
    if not (folder / CONFIG_NAME).is_file():
        raise ValueError(
            f"{folder} holds no {CONFIG_NAME} to store a calibration in. Merge a LoRA adapter into its base first."
        )
    return folder


def check_target(source: str | None, target: Path) -> None:
    """Refuse a target before any image is scored.

    Args:
        source: the model as the user named it; `None` for the default of this package.
        target: where the calibrated checkpoint is to be saved.

    Raises:
        ValueError: unless the target is new, an empty folder, or the model's own folder.
    """
    if target.exists() and not target.is_dir():
        raise ValueError(f"`save_to` {target} is a file; name a folder.")
    own = source is not None and Path(source).is_dir() and Path(source).resolve() == target.resolve()
    if target.is_dir() and any(target.iterdir()) and not own:
        raise ValueError(
            f"`save_to` {target} exists and is not the folder of the model. Name a new folder, or the model's own to "
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
    """Write the checkpoint with what was fitted in its config, and `calibration.json` beside it.

    The calibration is put behind the one that the checkpoint has. Its own operating points are kept, moved so that
    they part the same images as before, unless one of the same name was fitted.

    Args:
        source: the checkpoint's folder or Hub id, whose scores were fitted.
        target: a new or empty folder, or the checkpoint's own, of which only the config is then changed.
        calibration: the fit; `None` where only a band was fitted.
        record: what is known of the fit, such as the intervals; goes into `calibration.json`.
        band: the decision band. One that the checkpoint has goes where its scores are calibrated anew.
        head: of a checkpoint with several heads, the one that was fitted.
        family: of a stock folder, as in `pipelines.pipeline`; the new config says it.

    Returns:
        The folder.

    Raises:
        OSError, ValueError: as `checkpoint_folder` and `check_target`; or where another process writes the target.
    """
    folder = checkpoint_folder(source)
    check_target(source, target)
    fields = read_json_object(folder / CONFIG_NAME)
    checkpoint = open_checkpoint(source, family)
    config = checkpoint.load_config()
    if checkpoint.stock:  # whose library class has no such fields: say whose they are
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
        # The config last: what it holds is then always explained by the file beside it.
        with lock_beside(folder):
            for name in reversed(content):
                write_json(folder / name, content[name])
        return folder
    with written_whole(target) as part:
        # Links of the Hub's cache are followed: the copy stands alone.
        left_out = shutil.ignore_patterns(*STALE, ".*", "__pycache__", "__init__.py")
        shutil.copytree(folder, part, ignore=left_out, dirs_exist_ok=True)
        for name, value in content.items():
            write_json(part / name, value)
    return target


class _HeadFields:
    """What a config with several heads says of one of them: the default head's stand at its top."""

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
