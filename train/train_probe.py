"""Fit linear heads on a frozen, unchanged CLIP encoder.

    python -m deepfake_detectors.train.train_probe --config clip_probe_mini

Features are computed once and cached; after that the heads take a minute. The output folder has the unchanged encoder
file, the heads, the processor and `validation.json`, and for each head the scores used for calibration and band
(`out_of_fold_HEAD.jsonl`) and a plot of risk against coverage (`band_HEAD.png`).
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from deepfake_detectors.evaluation.bands import DecisionBand, fit_band, plot_band
from deepfake_detectors.modeling.configuration_clip_probe import ClipProbeConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_clip_probe import ClipProbeImageProcessor
from deepfake_detectors.modeling.modeling_clip_probe import ClipProbeForDeepfakeDetection
from deepfake_detectors.modeling.modeling_clip_probe_storage import ENCODER_FILE
from deepfake_detectors.module_command import run_command
from deepfake_detectors.outputs import folder_lock, write_bytes, write_text
from deepfake_detectors.train.probe_features import FeatureStore, data_root, encoder_digest, list_pictures
from deepfake_detectors.train.probe_fitting import LinearHead, TrainingSet, fit_head
from deepfake_detectors.train.probe_recipe import HeadRecipe, ProbeRecipe, read_probe_recipe
from deepfake_detectors.train.probe_validation import ProbeValidation, validate_head

__all__ = ["LEAST_COVERAGE", "ProbeArguments", "build_probe", "train_probe"]

logger = logging.getLogger("deepfake_detectors.train")  # __name__ is "__main__" when launched

LEAST_COVERAGE = 0.3  # a band that answers less frequently is not useful


@dataclass
class ProbeArguments:
    """Recipe, and changes to it."""

    config: str = field(metadata={"help": "Recipe: a YAML file, or the name of one of this package."})
    encoder: str | None = field(default=None, metadata={"help": "Instead of the recipe's."})
    output_dir: str | None = field(default=None, metadata={"help": "Instead of the recipe's."})
    features_dir: str | None = field(default=None, metadata={"help": "Instead of the recipe's."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the parts; $DEEPFAKE_DATA if unset."})

    def recipe(self) -> ProbeRecipe:
        """Return the recipe with the changes."""
        changes = {name: value for name, value in vars(self).items() if name != "config" and value is not None}
        return replace(read_probe_recipe(self.config), **changes)


def train_probe(recipe: ProbeRecipe) -> Path:
    """Fit, validate and save all heads of a recipe; return the output folder.

    Raises:
        ValueError: for settings that contradict each other, or a part without images.
        FileNotFoundError: for missing data.
    """
    root = data_root(recipe.data_dir)
    torch.set_num_threads(recipe.cpu_threads)
    model, image_processor = build_probe(recipe)
    output = Path(recipe.output_dir)
    with folder_lock(output):
        reports: dict[str, Any] = {}
        for name, head_recipe in recipe.heads.items():
            data = _training_set(recipe, head_recipe, name, model, image_processor, root)
            with threadpool_limits(recipe.cpu_threads):
                validation = validate_head(data, head_recipe)
                _set_head(model, name, fit_head(data, head_recipe))
            band = _band(validation, head_recipe, name, output)
            _set_reported(
                model.config,
                name,
                calibration=validation.calibration,
                decision_band=None if band is None or band.coverage < LEAST_COVERAGE else band.to_config(),
            )
            reports[name] = _report(data, head_recipe, validation, band)
            _log_validation(name, reports[name])
        model.save_pretrained(output)
        if model.config.encoder_storage == "int8":
            shutil.copyfile(Path(recipe.encoder) / ENCODER_FILE, output / ENCODER_FILE)
        VerdictProcessor(image_processor).save_pretrained(output)
        content = {"encoder": encoder_digest(model), "cpu_threads": recipe.cpu_threads, "heads": reports}
        write_text(output / "validation.json", json.dumps(content, indent=2) + "\n")
    return output


def build_probe(recipe: ProbeRecipe) -> tuple[ClipProbeForDeepfakeDetection, ClipProbeImageProcessor]:
    """Return the encoder with the recipe's unfitted heads, and its image processor."""
    base = ClipProbeForDeepfakeDetection.from_pretrained(recipe.encoder)
    heads: dict[str, dict[str, Any]] = {}
    default = next(iter(recipe.heads))
    for name, head in recipe.heads.items():
        heads[name] = {"features": list(head.features), "clip": head.clip, "subject": head.subject}
        if head.layers is not None:
            heads[name]["layers"] = list(head.layers)
        if name != default:
            heads[name]["license_notice"] = head.license_notice
    config = ClipProbeConfig(
        vision_config=base.config.vision_config.to_dict(),
        heads=heads,
        default_head=default,
        encoder_storage=base.config.encoder_storage,
        license_notice=recipe.heads[default].license_notice,
    )
    if config.has_projection != base.config.has_projection:
        raise ValueError(
            f"The heads of the recipe {'do' if config.has_projection else 'do not'} read 'projection', but those of "
            f"{recipe.encoder} {'do' if base.config.has_projection else 'do not'}; convert the tower for these heads."
        )
    model = ClipProbeForDeepfakeDetection(config).eval()
    weights = {name: weight for name, weight in base.state_dict().items() if not name.startswith("heads.")}
    heads_as_built = {name: weight for name, weight in model.state_dict().items() if name.startswith("heads.")}
    model.load_state_dict(weights | heads_as_built)
    size = config.vision_config.image_size
    image_processor = ClipProbeImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        heads={name: dict(head.preprocessing) for name, head in recipe.heads.items()},
        default_head=default,
    )
    return model, image_processor


def _training_set(
    recipe: ProbeRecipe,
    head_recipe: HeadRecipe,
    name: str,
    model: ClipProbeForDeepfakeDetection,
    image_processor: ClipProbeImageProcessor,
    root: Path,
) -> TrainingSet:
    pictures = list_pictures(head_recipe, root)
    logger.info("head %s: %d images, %d of them fake", name, len(pictures), sum(item.fake for item in pictures))
    store = FeatureStore(Path(recipe.features_dir), model, image_processor, name)
    copies = None if head_recipe.copies is None else store.features(pictures, head_recipe.copies)
    return TrainingSet(pictures, store.features(pictures), copies)


def _set_head(model: ClipProbeForDeepfakeDetection, name: str, fitted: LinearHead) -> None:
    head = model.heads[name]
    with torch.no_grad():
        for target, values in (
            (head.mean, fitted.mean),
            (head.deviation, fitted.deviation),
            (head.classifier.weight[0], fitted.weight),
            (head.classifier.bias, np.array([fitted.bias])),
        ):
            target.copy_(torch.from_numpy(values))


def _set_reported(config: ClipProbeConfig, name: str, **fields: Any) -> None:
    if name == config.default_head:
        for field_name, value in fields.items():
            setattr(config, field_name, value)
    else:
        config.heads[name] |= fields


def _band(validation: ProbeValidation, recipe: HeadRecipe, name: str, output: Path) -> DecisionBand | None:
    """Return the band of a head, and write its plot and scores; `None` if too few images were scored."""
    rows = validation.out_of_fold
    lines = "".join(f"{row.to_json()}\n" for row in rows)
    (output / f"out_of_fold_{name}.jsonl").write_text(lines, encoding="utf-8")
    try:
        band = fit_band(rows, recipe.false_alarm_rate, fitted_on="out-of-fold images of the training sets")
    except ValueError as error:
        logger.warning("head %s gets no decision band: %s", name, error)
        return None
    write_bytes(output / f"band_{name}.png", plot_band(band))
    if band.coverage < LEAST_COVERAGE:
        logger.warning(
            "head %s gets no decision band: it would answer for %.2f of the images, less than %.2f",
            name,
            band.coverage,
            LEAST_COVERAGE,
        )
    return band


def _report(
    data: TrainingSet, recipe: HeadRecipe, validation: ProbeValidation, band: DecisionBand | None
) -> dict[str, Any]:
    parts: dict[str, dict[str, int]] = {name: {"real": 0, "fake": 0} for name in recipe.parts}
    for picture in data.pictures:
        parts[picture.part]["fake" if picture.fake else "real"] += 1
    return {
        "pictures": len(data.pictures),
        "parts": parts,
        "method": recipe.method,
        "strength": recipe.strength,
        "validation": recipe.validation,
        **validation.report,
        "calibration": validation.calibration,
        "band": None if band is None else {**band.to_config(), "counts": band.counts, "curve": band.curve},
        "band_shipped": band is not None and band.coverage >= LEAST_COVERAGE,
    }


def _log_validation(name: str, report: dict[str, Any]) -> None:
    for key in ("left_out", "strangers", "per_manipulation"):
        for part, found in report.get(key, {}).items():
            logger.info("head %s, %s, %s: AUC %.3f", name, key, part, found["auc"])
    if "cross_validated" in report:
        logger.info("head %s, cross-validated: AUC %.3f", name, report["cross_validated"]["auc"])
    for key in ("m1", "m2"):
        if key in report:
            logger.info("head %s, %s: %.3f", name, key, report[key])


def _run(arguments: ProbeArguments) -> Path:
    return train_probe(arguments.recipe())


if __name__ == "__main__":
    run_command(_run, ProbeArguments)
