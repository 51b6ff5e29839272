"""Robustness of a detector to images that are re-encoded, resized, cropped and shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from deepfake_detectors.corruptions import Corruption
from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.paired import compare_scores
from deepfake_detectors.evaluation.plots import plot_heat_map
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups, labels_of, scores_of
from deepfake_detectors.evaluation.sets import PictureSet
from deepfake_detectors.modeling.image_loading import MAX_PIXELS, InputImageError, load_image

__all__ = ["CorruptedPictures", "corrupted_set", "plot_robustness", "robustness_results", "variant_folder"]

FOLDER = "robustness"
SHOWN = {"auc": "AUC", "accuracy": "accuracy", "false_alarm_rate": "false alarms", "flip_rate": "verdicts flipped"}
HIGHER_IS_BETTER = frozenset({"auc", "accuracy"})


class CorruptedPictures(Sequence):
    """The images of a dataset, altered on access and not stored.

    Args:
        pictures: the dataset.
        corruption: the corruption, applied to both classes.
        seed: seed of random corruptions.
        max_pixels: largest width times height to decode.
    """

    def __init__(
        self, pictures: PictureSet, corruption: Corruption, seed: int = 0, max_pixels: int | None = None
    ) -> None:
        self.pictures, self.corruption, self.seed = pictures, corruption, seed
        self.in_order = pictures.in_order
        self.max_pixels = MAX_PIXELS if max_pixels is None else max_pixels

    def __len__(self) -> int:
        return len(self.pictures.rows)

    def __getitem__(self, index: Any) -> Any:
        source = self.pictures.images[index]
        try:
            image = load_image(source, max_pixels=self.max_pixels)
        except InputImageError:
            return source  # the detector's own loader reports the error
        return self.corruption.apply(image, self.seed, self.pictures.rows[index].id)


def corrupted_set(
    pictures: PictureSet, corruption: Corruption, seed: int = 0, max_pixels: int | None = None
) -> PictureSet:
    """Return the dataset with every image altered in the same way, without masks, which would not fit crops."""
    state = f"{pictures.fingerprint} {corruption.steps} {seed}"
    return replace(
        pictures,
        name=f"{pictures.name}, {corruption.name}",
        images=CorruptedPictures(pictures, corruption, seed, max_pixels),
        masks=None,
        mask_source=None,
        fingerprint=sha256(state.encode()).hexdigest(),
    )


def variant_folder(output: Path | None, corruption: Corruption) -> Path | None:
    """Return the folder for the scores of one variant; `None` to keep them in memory."""
    return None if output is None else output / FOLDER / corruption.name


def robustness_results(
    recipe: str,
    before: Sequence[Prediction],
    variants: Mapping[Corruption, Sequence[Prediction]],
    settings: Settings,
    image_seed: int = 0,
) -> dict[str, Any]:
    """Return the entry of a sweep in results.json.

    Args:
        recipe: name of the set of corruptions.
        before: predictions for the unaltered images.
        variants: corruption -> predictions for the altered images, in any order.
        settings: the fixed threshold and the bootstrap.
        image_seed: seed of random corruptions.

    Returns:
        `recipe`, `threshold`, `seed`, and `variants`: name -> `steps` in words, `family`, `pictures`, `metrics` and
        `undefined` as `compare_scores` gives them, each compared with the unaltered images.
    """
    table: dict[str, Any] = {}
    for corruption, rows in variants.items():
        found = {row.id: row for row in rows}
        pairs = [(row, found[row.id]) for row in before if row.id in found]
        known, changed = [row for row, _ in pairs], [row for _, row in pairs]
        entry: dict[str, Any] = {"steps": corruption.describe(), "family": corruption.family, "pictures": len(pairs)}
        if pairs:
            _, groups = bootstrap_groups(known)
            entry |= compare_scores(
                labels_of(known),
                scores_of(known),
                scores_of(changed),
                (settings.threshold, settings.threshold),
                groups,
                settings.resamples,
                settings.seed,
            ).to_dict()
        table[corruption.name] = entry
    return {"recipe": recipe, "threshold": settings.threshold, "seed": image_seed, "variants": table}


def plot_robustness(found: Mapping[str, Any], unchanged: Mapping[str, Any]) -> bytes:
    """Draw the heat map of a sweep.

    Args:
        found: as `robustness_results` gives it.
        unchanged: metric -> value of the images as they are, where it is known.
    """
    names = ["as they are", *found["variants"]]
    rows = [[unchanged.get(metric) for metric in SHOWN]]
    rows += [
        [entry["metrics"][metric]["value"] if "metrics" in entry else None for metric in SHOWN]
        for entry in found["variants"].values()
    ]
    better = [metric in HIGHER_IS_BETTER for metric in SHOWN]
    title = f"After re-encoding, threshold {found['threshold']:.4g}"
    return plot_heat_map(rows, names, list(SHOWN.values()), better, title)
