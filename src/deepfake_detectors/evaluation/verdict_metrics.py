"""Metrics of verdicts that were read from texts: real, fake, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.bootstrap import Interval, bootstrap_interval
from deepfake_detectors.evaluation.metric_set import MetricSet
from deepfake_detectors.evaluation.metrics import REAL_NAME, require_scikit_learn

__all__ = ["CLASSES", "check_verdicts", "confusion", "verdict_metrics", "verdict_table"]

CLASSES = ("real", "fake")
UNDETERMINED = "undetermined"


def check_verdicts(truth: Sequence[str], verdicts: Sequence[str | None]) -> None:
    """Raise a `ValueError` unless both are equally long, not empty, and hold class names (verdicts also `None`)."""
    if len(truth) != len(verdicts):
        raise ValueError(f"There are {len(truth)} labels but {len(verdicts)} verdicts.")
    if not truth:
        raise ValueError("There is nothing to evaluate: no answers.")
    strange = sorted({str(value) for value in truth if value not in CLASSES})
    strange += sorted({str(value) for value in verdicts if value is not None and value not in CLASSES})
    if strange:
        raise ValueError(f"Labels and verdicts hold {strange[:5]}, expected 'real' and 'fake' only.")


def confusion(truth: Sequence[str], verdicts: Sequence[str | None]) -> dict[str, int]:
    """Counts with fake as the positive class: `tp`, `fp`, `fn`, `tn`, and the answers that gave no verdict."""
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
    """Accuracy, and per class precision, recall and F1.

    An answer without a verdict is a miss of its own class, and counts for neither side's precision.

    Args:
        truth: `(n,)`, `"real"` or `"fake"`.
        verdicts: `(n,)`, the same or `None`.
        groups: `(n,)`, pictures that share source material, for the interval of the accuracy.
        resamples: bootstrap resamples for that interval; 0 for no interval.
        seed: of the bootstrap.

    Returns:
        `accuracy`, `balanced_accuracy`, and `f1_`, `precision_`, `recall_` of `fake` and of `real` (the suffix is
        the positive class), all in [0, 1]; those of an absent class are `None` with the reason.
    """
    check_verdicts(truth, verdicts)
    said = [verdict or UNDETERMINED for verdict in verdicts]
    right = np.array([verdict == label for verdict, label in zip(said, truth, strict=True)], dtype=np.float64)
    is_fake = np.array([label == "fake" for label in truth], dtype=np.int64)
    result = MetricSet()
    result.add("accuracy", float(right.mean()), interval=_interval(is_fake, right, groups, resamples, seed))
    precision, recall, f1, support = require_scikit_learn().precision_recall_fscore_support(
        truth, said, labels=list(CLASSES), zero_division=np.nan
    )
    absent = [name for name, count in zip(CLASSES, support, strict=True) if count == 0]
    missing = f"the set holds no {absent[0]} picture" if absent else None
    result.add("balanced_accuracy", None if missing else float(recall.mean()), missing)
    for index in (1, 0):
        name = CLASSES[index]
        none_here = f"the set holds no {name} picture" if name in absent else None
        result.add(f"f1_{name}", None if none_here else float(f1[index]), none_here)
        none_said = none_here or (f"no answer says {name}" if np.isnan(precision[index]) else None)
        result.add(f"precision_{name}", None if none_said else float(precision[index]), none_said)
        result.add(f"recall_{name}", None if none_here else float(recall[index]), none_here)
    return result


def verdict_table(
    truth: Sequence[str], verdicts: Sequence[str | None], manipulations: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """One row per manipulation, and one for all reals: `{"count", "correct", "undetermined", "accuracy"}`."""
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


def _interval(
    is_fake: np.ndarray, right: np.ndarray, groups: Sequence[str] | None, resamples: int, seed: int
) -> Interval | None:
    if resamples == 0:
        return None
    return bootstrap_interval(lambda _, values: float(values.mean()), is_fake, right, groups, 0.95, resamples, seed)
