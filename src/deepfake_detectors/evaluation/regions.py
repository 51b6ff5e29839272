"""Agreement of the regions named in answers with the masks of manipulated areas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.bootstrap import mean_interval
from deepfake_detectors.evaluation.explanation_checks import others_of
from deepfake_detectors.evaluation.localisation import read_mask
from deepfake_detectors.evaluation.metrics import MetricSet
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups
from deepfake_detectors.modeling.regions_lvlm_dfd import parse_regions, regions_of_mask

__all__ = ["NAMED_ON_REAL", "score_regions"]

NAMED_ON_REAL = "named_on_real"


def score_regions(
    rows: Sequence[Prediction], mask_of: Callable[[str], Any], resamples: int, seed: int
) -> dict[str, Any] | None:
    """Compare the regions named in `Prediction.text` with those that the true mask covers.

    Args:
        rows: the scored images, crops of one face each.
        mask_of: id -> true mask, as accepted by `read_mask`, or `None`.
        resamples, seed: settings of the 95 % intervals.

    Returns:
        `counts`, `metrics` and `undefined`: `region_precision` and `region_recall`, means over the forged images
        with a mask (an answer without regions has precision and recall 0), and `named_on_real`, the share of real
        images whose answer mentions a region. `region_precision_of_control` and `region_recall_of_control` are those
        of a control that ignores the image: each of these forged images gets the answer about another one. `unknown`
        lists unknown region words, which never agree. `None` if no answer mentions a region.

    Raises:
        ValueError: as `read_mask`.
    """
    named = {row.id: parse_regions(row.text) for row in rows if row.text is not None}
    if not any(known or unknown for known, unknown in named.values()):
        return None
    scored: list[Prediction] = []
    masked: list[set[str]] = []
    for row in rows:
        truth = mask_of(row.id) if row.label == "fake" and row.id in named else None
        if truth is None:
            continue
        covered = set(regions_of_mask(np.asarray(read_mask(truth), dtype=np.float32) / 255))
        if not covered:
            continue
        scored.append(row)
        masked.append(covered)
    result = MetricSet()
    reals = [row for row in rows if row.label == "real" and row.id in named]
    own = list(range(len(scored)))
    others = others_of(len(scored), seed) if len(scored) > 1 else []
    for suffix, order, reason in (
        ("", own, "no forged image has a mask over a region"),
        ("_of_control", others, f"{len(scored)} forged images have a mask over a region, and a control needs 2"),
    ):
        precision, recall = [], []
        for covered, place in zip(masked, order, strict=False):
            known, unknown = named[scored[place].id]
            hits = len(covered & set(known))
            precision.append(hits / max(1, len(known) + len(unknown)))
            recall.append(hits / len(covered))
        _add(result, f"region_precision{suffix}", precision, scored, reason, resamples, seed)
        _add(result, f"region_recall{suffix}", recall, scored, reason, resamples, seed)
    on_real = [float(any(named[row.id])) for row in reals]
    _add(result, NAMED_ON_REAL, on_real, reals, "the set has no real image with an answer", resamples, seed)
    words = sorted({word for _, unknown in named.values() for word in unknown})
    counts = {
        "forged with mask": len(scored),
        "real": len(reals),
        "naming a region": sum(bool(known) for known, _ in named.values()),
    }
    return {"counts": counts, **result.to_dict(), "unknown": words}


def _add(
    result: MetricSet,
    name: str,
    values: Sequence[float],
    rows: Sequence[Prediction],
    reason: str,
    resamples: int,
    seed: int,
) -> None:
    if not values:
        result.add(name, None, reason)
        return
    array = np.array(values)
    result.add(name, float(array.mean()), interval=mean_interval(array, bootstrap_groups(rows)[1], resamples, seed))
