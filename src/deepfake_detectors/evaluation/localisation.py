"""Localisation metrics of masks: pixel AUC, F1 and IoU, from one small histogram per image.

A mask has 256 levels, so its histograms over changed and unchanged pixels are lossless. They are written to a file
while images are scored, so memory does not grow with the number of pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deepfake_detectors.evaluation.bootstrap import mean_interval
from deepfake_detectors.evaluation.metrics import MetricSet, require_scikit_learn
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups, read_json_lines
from deepfake_detectors.modeling.image_loading import InputImageError, describe_image_source, load_mask

__all__ = [
    "LOCALISATION_FILE",
    "MARKED_ON_REAL",
    "PER_PICTURE",
    "count_pixels",
    "pixel_scores",
    "read_counts",
    "read_mask",
    "score_localisation",
    "write_counts",
]

LOCALISATION_FILE = "localisation.jsonl"
LEVELS = 256
MARKED_FROM = 128  # half of 255: more likely changed than not
PER_PICTURE = ("pixel_auc", "pixel_f1", "iou")
MARKED_ON_REAL = "marked_on_real"


def count_pixels(mask: Image.Image, truth: Image.Image | None, name: str) -> np.ndarray:
    """Count pixels by level of the mask.

    Args:
        mask: mask of the detector, mode `L`, where 255 is certainly changed.
        truth: mode `L` of the same size, changed at 128 or above; `None` if nothing was changed.
        name: name of the image, for the message.

    Returns:
        int64 `(2, 256)`: unchanged pixels, changed pixels.

    Raises:
        ValueError: for masks of different sizes.
    """
    levels = np.asarray(mask, dtype=np.int64)
    if truth is None:
        return np.stack([np.bincount(levels.ravel(), minlength=LEVELS), np.zeros(LEVELS, dtype=np.int64)])
    if truth.size != mask.size:
        raise ValueError(
            f"{name}: its true mask has {truth.width}x{truth.height} pixels, but the image has "
            f"{mask.width}x{mask.height}."
        )
    changed = np.asarray(truth) >= MARKED_FROM
    return np.bincount((levels + LEVELS * changed).ravel(), minlength=2 * LEVELS).reshape(2, LEVELS)


def read_mask(source: Any) -> Image.Image:
    """Read a true mask, mode `L`, from a path, a PIL image or an undecoded cell of `datasets`.

    Transparency is dropped, because some authors mark black as transparent in masks.

    Raises:
        ValueError: if it is not an image, or has no white although it is not all black.
    """
    name = "a mask of the dataset" if isinstance(source, Image.Image) else describe_image_source(source)
    try:
        grey = load_mask(source)
    except InputImageError as error:
        raise ValueError(f"{name}: this mask cannot be read ({error}).") from error
    highest = int(np.asarray(grey).max())
    if 0 < highest < MARKED_FROM:
        raise ValueError(f"{name}: this mask only goes up to {highest} of 255; white must mark the changed area.")
    return grey


def pixel_scores(counts: np.ndarray) -> dict[str, float | None]:
    """Return `pixel_auc`, `pixel_f1` and `iou` in [0, 1] of the changed pixels; `None` if none or all were changed.

    Args:
        counts: `(2, 256)`, from `count_pixels`, of one image or summed.
    """
    if not counts.sum(axis=1).all():
        return dict.fromkeys(PER_PICTURE)
    library = require_scikit_learn()
    truth, levels = np.repeat([0, 1], LEVELS), np.tile(np.arange(LEVELS), 2)
    weights, marked = counts.ravel(), levels >= MARKED_FROM
    return {
        "pixel_auc": float(library.roc_auc_score(truth, levels, sample_weight=weights)),
        "pixel_f1": float(library.f1_score(truth, marked, sample_weight=weights, zero_division=0.0)),
        "iou": float(library.jaccard_score(truth, marked, sample_weight=weights, zero_division=0.0)),
    }


def write_counts(file: Path, counts: Mapping[str, np.ndarray]) -> None:
    """Append one line per image: `id`, and the levels that occur in its unchanged and in its changed pixels."""
    with file.open("a", encoding="utf-8") as handle:
        for name, pair in counts.items():
            kinds = {
                kind: {str(level): int(row[level]) for level in np.flatnonzero(row)}
                for kind, row in zip(("unchanged", "changed"), pair, strict=True)
            }
            handle.write(json.dumps({"id": name, **kinds}, ensure_ascii=False) + "\n")


def score_localisation(
    counts_of: Iterable[tuple[str, np.ndarray]], rows: Sequence[Prediction], resamples: int, seed: int
) -> dict[str, Any]:
    """Compute localisation metrics of the images in `rows`; fakes without a true mask are left out and counted.

    Args:
        counts_of: pairs of id and `count_pixels`; for duplicate ids, the first is used.
        rows: the scored images.
        resamples, seed: settings of the 95 % intervals.

    Returns:
        `counts`, `metrics` and `undefined`: `pixel_auc`, `pixel_f1` and `iou`, the means over the forged images;
        the same with `_pooled`, over all their pixels, so that large images have more weight; `marked_on_real`, the
        mean share of marked pixels in real images. Pixels are marked if the mask is 0.5 or more. Also
        `per_manipulation`.
    """
    by_id = {row.id: row for row in rows}
    found: dict[str, dict[str, float | None]] = {}
    marked: dict[str, float] = {}
    pooled = np.zeros((2, LEVELS), dtype=np.int64)
    for name, counts in counts_of:
        row = by_id.get(name)
        if row is None or name in found or name in marked:  # written again after a kill
            continue
        if row.label == "real":
            marked[name] = counts[:, MARKED_FROM:].sum() / counts.sum()
            continue
        found[name] = pixel_scores(counts)
        if found[name]["iou"] is not None:
            pooled += counts
    scored = [row for row in rows if found.get(row.id, {}).get("iou") is not None]
    reals = [row for row in rows if row.id in marked]
    result = MetricSet()
    nothing = None if scored else "no forged image has a true mask with changed and unchanged pixels"
    for name in PER_PICTURE:
        values = np.array([found[row.id][name] for row in scored], dtype=np.float64)
        _add_mean(result, name, values, scored, nothing, resamples, seed)
    together = pixel_scores(pooled)
    for name in PER_PICTURE:
        result.add(f"{name}_pooled", together[name], nothing)
    shares = np.array([marked[row.id] for row in reals], dtype=np.float64)
    absent = None if reals else "the set has no real image"
    _add_mean(result, MARKED_ON_REAL, shares, reals, absent, resamples, seed)
    forged = [row for row in rows if row.label == "fake"]
    return {
        "counts": {"forged with mask": len(scored), "forged without": len(forged) - len(scored), "real": len(reals)},
        **result.to_dict(),
        "per_manipulation": _per_manipulation(scored, found),
    }


def _per_manipulation(
    rows: Sequence[Prediction], found: Mapping[str, Mapping[str, float | None]]
) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for method in sorted({row.method for row in rows}):
        chosen = [found[row.id] for row in rows if row.method == method]
        means = {name: float(np.mean([entry[name] for entry in chosen])) for name in PER_PICTURE}
        table[method] = {"count": len(chosen), **means}
    return table


def _add_mean(
    result: MetricSet,
    name: str,
    values: np.ndarray,
    rows: Sequence[Prediction],
    reason: str | None,
    resamples: int,
    seed: int,
) -> None:
    if reason:
        result.add(name, None, reason)
    else:
        _, groups = bootstrap_groups(rows)
        result.add(name, float(values.mean()), interval=mean_interval(values, groups, resamples, seed))


def read_counts(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the contents written by `write_counts`.

    Raises:
        FileNotFoundError, ValueError: for a missing or broken file; an empty one yields nothing.
    """
    if file.is_file() and not file.stat().st_size:
        return
    for place, line in read_json_lines(file, "pixel counts"):
        counts = np.zeros((2, LEVELS), dtype=np.int64)
        try:
            for row, kind in zip(counts, ("unchanged", "changed"), strict=True):
                for level, count in line[kind].items():
                    row[int(level)] = count
            yield line["id"], counts
        except (KeyError, AttributeError, ValueError, IndexError, TypeError) as error:
            raise ValueError(
                f"{place}: not the pixel counts of an image ({error!r}). Remove this file's folder."
            ) from error
