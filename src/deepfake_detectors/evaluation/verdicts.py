"""Metrics of verdicts parsed from texts: real, fake, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.bootstrap import Interval, draw_weights, percentile_interval
from deepfake_detectors.evaluation.metrics import REAL_NAME, MetricSet, require_scikit_learn

__all__ = ["CLASSES", "category_verdicts", "check_verdicts", "confusion", "verdict_metrics", "verdict_table"]

CLASSES = ("real", "fake")
UNDETERMINED = "undetermined"


def check_verdicts(truth: Sequence[str], verdicts: Sequence[str | None]) -> None:
    """Raise a `ValueError` unless both have the same length and only class names (verdicts also `None`)."""
    if len(truth) != len(verdicts):
        raise ValueError(f"There are {len(truth)} labels but {len(verdicts)} verdicts.")
    if not truth:
        raise ValueError("There is nothing to evaluate: there are no answers.")
    strange = sorted({str(value) for value in truth if value not in CLASSES})
    strange += sorted({str(value) for value in verdicts if value is not None and value not in CLASSES})
    if strange:
        raise ValueError(f"Labels and verdicts contain {strange[:5]}, expected only 'real' and 'fake'.")


def confusion(truth: Sequence[str], verdicts: Sequence[str | None]) -> dict[str, int]:
    """Counts with fake as the positive class: `tp`, `fp`, `fn`, `tn`, and answers without a verdict."""
    pairs = list(zip(truth, verdicts, strict=True))
    return {
        "tp": pairs.count(("fake", "fake")),
        "fp": pairs.count(("real", "fake")),
        "fn": pairs.count(("fake", "real")),
        "tn": pairs.count(("real", "real")),
        "undetermined_fake": pairs.count(("fake", None)),
        "undetermined_real": pairs.count(("real", None)),
    }


def verdict_metrics(
    truth: Sequence[str],
    verdicts: Sequence[str | None],
    groups: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> MetricSet:
    """Compute accuracy, and precision, recall and F1 per class.

    An answer without a verdict is a miss for its own class and does not affect precision.

    Args:
        truth: `(n,)`, `"real"` or `"fake"`.
        verdicts: `(n,)`, the same or `None`.
        groups: `(n,)`; images with the same value share source material, and whole groups are resampled.
        resamples: bootstrap resamples for the 95 % intervals; 0 for none.
        seed: seed of the bootstrap.

    Returns:
        `accuracy`, `balanced_accuracy`, and `f1_`, `precision_`, `recall_` of `fake` and of `real` (the suffix is
        the positive class), all in [0, 1]; those of an absent class are `None` with the reason.
    """
    check_verdicts(truth, verdicts)
    said = [verdict or UNDETERMINED for verdict in verdicts]
    right = np.array([verdict == label for verdict, label in zip(said, truth, strict=True)], dtype=np.float64)
    intervals = _intervals(truth, said, groups, resamples, seed) if resamples else {}
    precision, recall, f1, support = require_scikit_learn().precision_recall_fscore_support(
        truth, said, labels=list(CLASSES), zero_division=np.nan
    )
    absent = [name for name, count in zip(CLASSES, support, strict=True) if count == 0]
    missing = f"the set has no {absent[0]} image" if absent else None
    found: dict[str, tuple[float, str | None]] = {
        "accuracy": (right.mean(), None),
        "balanced_accuracy": (recall.mean(), missing),
    }
    for index in (1, 0):
        name = CLASSES[index]
        none_here = f"the set has no {name} image" if name in absent else None
        none_said = none_here or (f"no answer says {name}" if np.isnan(precision[index]) else None)
        found[f"f1_{name}"] = (f1[index], none_here)
        found[f"precision_{name}"] = (precision[index], none_said)
        found[f"recall_{name}"] = (recall[index], none_here)
    result = MetricSet()
    for name, (value, reason) in found.items():
        result.add(name, None if reason else float(value), reason, None if reason else intervals.get(name))
    return result


def verdict_table(
    truth: Sequence[str], verdicts: Sequence[str | None], manipulations: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Compute one row per manipulation, and one for all reals: `{"count", "correct", "undetermined", "accuracy"}`."""
    check_verdicts(truth, verdicts)
    table: dict[str, dict[str, Any]] = {}
    for label, verdict, manipulation in zip(truth, verdicts, manipulations, strict=True):
        name = REAL_NAME if label == "real" else manipulation
        row = table.setdefault(name, {"count": 0, "correct": 0, "undetermined": 0})
        row["count"] += 1
        row["correct"] += verdict == label
        row["undetermined"] += verdict is None
    for row in table.values():
        row["accuracy"] = row["correct"] / row["count"]
    return dict(sorted(table.items(), key=lambda item: (item[0] != REAL_NAME, item[0])))


def category_verdicts(
    truth: Sequence[str], verdicts: Sequence[str | None], categories: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Compute one row per category for both classes: `{"count", "correct", "undetermined", "accuracy"}`."""
    table: dict[str, dict[str, Any]] = {}
    for name in sorted(set(categories)):
        chosen = [place for place, other in enumerate(categories) if other == name]
        pairs = [(truth[place], verdicts[place]) for place in chosen]
        right = sum(label == verdict for label, verdict in pairs)
        table[name] = {
            "count": len(pairs),
            "correct": right,
            "undetermined": sum(verdict is None for _, verdict in pairs),
            "accuracy": right / len(pairs),
        }
    return table


def _intervals(
    truth: Sequence[str], said: Sequence[str], groups: Sequence[str] | None, resamples: int, seed: int
) -> dict[str, Interval | None]:
    """From the weights of the six cells of the confusion table in every resample."""
    cells = [(label, word) for label in CLASSES for word in (*CLASSES, UNDETERMINED)]
    member = np.array([[pair == cell for cell in cells] for pair in zip(truth, said, strict=True)], dtype=np.float64)
    draws = draw_weights(np.asarray(truth), groups, resamples, seed)
    totals = np.concatenate([weights @ member for weights in draws]).reshape(-1, 2, 3)
    sizes, hits, answered = totals.sum(axis=2), totals[:, [0, 1], [0, 1]], totals.sum(axis=1)[:, :2]
    with np.errstate(invalid="ignore"):
        recall, precision = hits / sizes, hits / answered
        f1 = np.where(sizes > 0, 2 * hits / (sizes + answered), np.nan)
    values = {"accuracy": hits.sum(axis=1) / sizes.sum(axis=1), "balanced_accuracy": recall.mean(axis=1)}
    for place, name in enumerate(CLASSES):
        values |= {f"f1_{name}": f1[:, place], f"precision_{name}": precision[:, place]}
        values[f"recall_{name}"] = recall[:, place]
    by = "picture" if groups is None else "group"
    return {name: percentile_interval(drawn, by=by) for name, drawn in values.items()}
