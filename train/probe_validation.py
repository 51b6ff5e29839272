"""Estimate how good a head is on unseen sources, using only training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.calibration import calibrated_probability
from deepfake_detectors.evaluation.control import bytes_per_pixel
from deepfake_detectors.evaluation.metrics import auc, score_intervals
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.train.probe_fitting import TrainingSet, fit_head, fit_weighted_platt
from deepfake_detectors.train.probe_recipe import HeadRecipe

__all__ = ["ProbeValidation", "validate_head"]

HALF = 0.5
ASSUMED_BAND = (0.3, 0.7)  # as in the study for the recipe, so that its table can be compared


@dataclass
class ProbeValidation:
    """Result of a validation.

    Attributes:
        calibration: fitted on the scores below.
        out_of_fold: calibrated P(fake) of each image, scored while its source (or group) was left out.
        report: numbers by name, for `validation.json`.
    """

    calibration: dict[str, float]
    out_of_fold: list[Prediction]
    report: dict[str, Any] = field(default_factory=dict)


def validate_head(data: TrainingSet, recipe: HeadRecipe) -> ProbeValidation:
    """Validate a head with the method in its recipe."""
    if recipe.validation == "cross_validation":
        return _cross_validation(data, recipe)
    return _leave_one_source_out(data, recipe)


def _leave_one_source_out(data: TrainingSet, recipe: HeadRecipe) -> ProbeValidation:
    """Return M1, the mean AUC of left-out fakes against their own real images, and M2, against left-out strangers."""
    part = np.array([picture.part for picture in data.pictures])
    source = np.array([picture.source for picture in data.pictures])
    fake = data.fake
    scores = np.full(len(part), np.nan)
    for name in sorted(set(source[fake])):
        out = source == name
        scores[out] = fit_head(data.subset(~out), recipe).difference(data.features[out])
    sets = {name: settings.against for name, settings in recipe.parts.items() if settings.against}
    measured, truth, values, weights = {}, [], [], []
    for name, against in sets.items():
        chosen = (part == name) | np.isin(part, against)
        measured[name] = _measured(data, chosen, scores)
        truth.append(fake[chosen])
        values.append(scores[chosen])
        weights.append(np.where(truth[-1], 1 / truth[-1].sum(), 1 / (~truth[-1]).sum()))
    calibration = fit_weighted_platt(np.concatenate(truth), np.concatenate(values), np.concatenate(weights))
    report: dict[str, Any] = {"left_out": measured, "m1": _mean_auc(measured)}
    strangers = {}
    for group in recipe.strangers:
        stranger = np.isin(part, group)
        for name in recipe.strange_fakes:
            out = stranger | (source == source[part == name][0])
            head = fit_head(data.subset(~out), recipe)
            strangers[f"{name} against {' and '.join(group)}"] = _measured(
                data, stranger | (part == name), head.difference(data.features)
            )
        scores[stranger] = fit_head(data.subset(~stranger), recipe).difference(data.features[stranger])
    if strangers:
        report |= {"strangers": strangers, "m2": _mean_auc(strangers)}
    report["left_out_reals_accused"] = {
        name: _accused(calibrated_probability(scores[part == name], calibration))
        for name, settings in recipe.parts.items()
        if settings.label == "real" and np.isfinite(scores[part == name]).all()
    }
    if recipe.cross_checked:
        checked = np.isin(part, recipe.cross_checked)
        inside = _held_out_scores(data, recipe, [picture.group for picture in data.pictures])[checked]
        report["cross_checked_reals_accused"] = _accused(calibrated_probability(inside, calibration))
    return ProbeValidation(calibration, _predictions(data, scores, calibration), report)


def _cross_validation(data: TrainingSet, recipe: HeadRecipe) -> ProbeValidation:
    fake = data.fake
    scores = _held_out_scores(data, recipe, [picture.group for picture in data.pictures])
    weights = np.where(fake, 1 / fake.sum(), 1 / (~fake).sum())
    calibration = fit_weighted_platt(fake, scores, weights)
    kinds = np.array([picture.manipulation for picture in data.pictures])
    report = {
        "cross_validated": _measured(data, np.ones(len(fake), dtype=bool), scores),
        "per_manipulation": {
            str(kind): _measured(data, ~fake | (kinds == kind), scores) for kind in sorted(set(kinds[fake]))
        },
        "folds": recipe.folds,
        "groups": len({picture.group for picture in data.pictures}),
        "reals_accused": _accused(calibrated_probability(scores[~fake], calibration)),
    }
    return ProbeValidation(calibration, _predictions(data, scores, calibration), report)


def _held_out_scores(data: TrainingSet, recipe: HeadRecipe, groups: Sequence[str]) -> np.ndarray:
    """Return logit differences `(n,)`, each from a head that has not seen the image's group."""
    names = sorted(set(groups))
    order = np.random.default_rng(recipe.fold_seed).permutation(len(names))
    fold_of = {names[place]: number % recipe.folds for number, place in enumerate(order)}
    fold = np.array([fold_of[group] for group in groups])
    scores = np.empty(len(fold))
    for number in range(recipe.folds):
        out = fold == number
        scores[out] = fit_head(data.subset(~out), recipe).difference(data.features[out])
    return scores


def _measured(data: TrainingSet, chosen: np.ndarray, scores: np.ndarray) -> dict[str, float | int | None]:
    """Return the AUC of the chosen images with its 95 % interval, and the AUC from file properties alone."""
    truth, values = data.fake[chosen].astype(int), scores[chosen]
    pictures = [picture for picture, keep in zip(data.pictures, chosen, strict=True) if keep]
    interval = score_intervals(truth, values, groups=[picture.group for picture in pictures])["auc"]
    sizes = [bytes_per_pixel(picture.image) for picture in pictures]
    return {
        "real": int((truth == 0).sum()),
        "fake": int(truth.sum()),
        "auc": auc(truth, values),
        "low": interval.low,
        "high": interval.high,
        "bytes_per_pixel_auc": None if None in sizes else auc(truth, sizes),
    }


def _mean_auc(measured: Mapping[str, Mapping[str, Any]]) -> float:
    return float(np.mean([found["auc"] for found in measured.values()]))


def _accused(probabilities: np.ndarray) -> dict[str, float]:
    return {
        "pictures": len(probabilities),
        "at_half": float((probabilities >= HALF).mean()),
        "at_0.7": float((probabilities >= ASSUMED_BAND[1]).mean()),
    }


def _predictions(data: TrainingSet, scores: np.ndarray, calibration: dict[str, float]) -> list[Prediction]:
    probabilities = calibrated_probability(scores, calibration)
    return [
        Prediction(
            id=f"{picture.part}/{picture.id}",
            label="fake" if picture.fake else "real",
            score=float(probability),
            manipulation=picture.manipulation,
            group_id=picture.group,
            set=picture.part,
        )
        for picture, probability in zip(data.pictures, probabilities, strict=True)
        if np.isfinite(probability)
    ]
