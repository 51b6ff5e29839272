"""What each protocol computes from predictions; the results go into `results.json` as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.bootstrap import draw_weights, percentile_interval
from deepfake_detectors.evaluation.metric_set import MetricSet
from deepfake_detectors.evaluation.metrics import accuracy, auc, category_table, manipulation_table, one_class_reason
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups, labels_of, scores_of
from deepfake_detectors.evaluation.protocols.verdict_rules import fakevlm_verdict, lvlm_dfd_verdicts, with_coin
from deepfake_detectors.evaluation.score_curve import ScoreCurve
from deepfake_detectors.evaluation.score_metrics import remarks, score_metrics
from deepfake_detectors.evaluation.settings import Settings
from deepfake_detectors.evaluation.verdict_metrics import category_verdicts, confusion, verdict_metrics, verdict_table
from deepfake_detectors.evaluation.video_metrics import official_video_metrics, video_metrics
from deepfake_detectors.modeling.verdict_parsing import parse_verdict

__all__ = [
    "score_antifakeprompt",
    "score_corrected",
    "score_fakevlm",
    "score_lvlm_dfd",
    "score_m2f2_det_videos",
]


def score_corrected(rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
    """Frame metrics of the scores, video metrics where videos have several frames; of texts where there are no scores.

    Raises:
        ValueError: where some rows have scores and others only texts.
    """
    by, groups = bootstrap_groups(rows)
    labels = labels_of(rows)
    common: dict[str, Any] = {"num_real": int((labels == 0).sum()), "num_fake": int((labels == 1).sum())}
    if settings.resamples:
        common["bootstrap"] = {"level": 0.95, "resamples": settings.resamples, "seed": settings.seed, "by": by}
    categories = [row.category or "no category" for row in rows]
    if all(row.score is None for row in rows):
        truth, said = [row.label for row in rows], [parse_verdict(str(row.text), "word") for row in rows]
        return {
            **common,
            "level": "picture",
            "parser": "word",
            **verdict_metrics(truth, said, groups, settings.resamples, settings.seed).to_dict(),
            "confusion": confusion(truth, said),
            "per_manipulation": verdict_table(truth, said, [row.method for row in rows]),
            **({"per_category": category_verdicts(truth, said, categories)} if len(set(categories)) > 1 else {}),
        }
    scores = scores_of(rows)
    found = score_metrics(labels, scores, settings.threshold, groups, settings.resamples, settings.seed)
    methods = np.array([row.method for row in rows], dtype=object)
    table = manipulation_table(labels, scores, methods, settings.threshold)
    for method, line in table.items():
        if line["auc"] is not None and settings.resamples:
            chosen = np.flatnonzero((labels == 0) | (methods == method))
            shared = None if groups is None else [groups[place] for place in chosen]
            curve = ScoreCurve(labels[chosen], scores[chosen])
            draws = draw_weights(labels[chosen], shared, settings.resamples, settings.seed)
            interval = percentile_interval(np.concatenate([curve.auc(weights) for weights in draws]))
            line["auc_interval"] = {"low": interval.low, "high": interval.high} if interval else None
    result = {
        **common,
        "level": "picture",
        "threshold": settings.threshold,
        **found.to_dict(),
        "per_manipulation": table,
        "remarks": remarks(labels),
    }
    if len(set(categories)) > 1:
        result["per_category"] = category_table(labels, scores, categories, settings.threshold)
    videos = [row.video_id for row in rows]
    if all(videos) and len(set(videos)) < len(videos):
        shared = groups if all(row.group_id for row in rows) else None
        result["videos"] = video_metrics(
            [str(video) for video in videos],
            labels,
            scores,
            settings.threshold,
            shared,
            settings.resamples,
            settings.seed,
        )
    return result


def score_m2f2_det_videos(rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
    """Published AUC and oracle accuracy over videos.

    Raises:
        ValueError: for a set without videos of several frames.
    """
    labels, scores = labels_of(rows), scores_of(rows)
    found = official_video_metrics([row.video_id for row in rows], 1 - labels, 1.0 - scores)
    return {"level": "video", "frames": len(rows), **found.to_dict(), "corrected": score_corrected(rows, settings)}


def score_fakevlm(rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
    """Published accuracies, and F1 with real as the positive class."""
    truth = [row.label for row in rows]
    read = [fakevlm_verdict(str(row.text)) for row in rows]
    said = with_coin(read, settings.seed)
    full = verdict_metrics(truth, said, resamples=0)
    result = MetricSet()
    names = {"accuracy_real": "recall_real", "accuracy_fake": "recall_fake", "f1": "f1_real", "f1_fake": "f1_fake"}
    result.add("accuracy", full.value("accuracy"))
    for name, source in names.items():
        result.add(name, full.value(source), full.undefined.get(source))
    both = [full.value("f1_real"), full.value("f1_fake")]
    missing = full.undefined.get("f1_real") or full.undefined.get("f1_fake")
    result.add("f1_macro", None if missing else sum(value for value in both if value is not None) / 2, missing)
    categories = [row.category or "all" for row in rows]
    return {
        "level": "picture",
        "coins": {"thrown": read.count(None), "seed": settings.seed},
        **result.to_dict(),
        "confusion": confusion(truth, said),
        "per_category": category_verdicts(truth, said, categories),
        "corrected": score_corrected([_text_only(row) for row in rows], settings),
    }


def score_antifakeprompt(rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
    """Accuracy per set at 0.5, and their plain mean. A set is `set`, or else a category, or else a manipulation.

    Raises:
        ValueError: for a set of both classes.
    """
    labels, scores = labels_of(rows), scores_of(rows)
    names = [row.set or row.category or row.method for row in rows]
    table: dict[str, dict[str, Any]] = {}
    for name in sorted(set(names)):
        chosen = [index for index, other in enumerate(names) if other == name]
        classes = sorted({rows[index].label for index in chosen})
        if len(classes) > 1:
            raise ValueError(
                f"This protocol takes sets of one class, but {name!r} holds both. Give real and fake pictures "
                "different sets (the field 'set' of a prediction)."
            )
        table[name] = {
            "count": len(chosen),
            "class": classes[0],
            "accuracy": accuracy(labels[chosen], scores[chosen], 0.5),
        }
    result = MetricSet()
    result.add("average", sum(row["accuracy"] for row in table.values()) / len(table))
    corrected = score_corrected(rows, settings)
    return {"level": "picture", "threshold": 0.5, **result.to_dict(), "per_set": table, "corrected": corrected}


def score_lvlm_dfd(rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
    """AUC of the scores and accuracy of the texts, whichever there are."""
    labels = labels_of(rows)
    result = MetricSet()
    extra: dict[str, Any] = {}
    if all(row.score is not None for row in rows):
        result.add("auc", auc(labels, scores_of(rows)), one_class_reason(labels))
    else:
        result.add("auc", None, "not every prediction has a score")
    if all(row.text is not None for row in rows):
        said = lvlm_dfd_verdicts([str(row.text) for row in rows])
        truth = [row.label for row in rows]
        result.add("text_accuracy", verdict_metrics(truth, said, resamples=0).value("accuracy"))
        extra["confusion"] = confusion(truth, said)
    else:
        result.add("text_accuracy", None, "not every prediction has a text")
    counts = Counter(row.label for row in rows)
    corrected = score_corrected(rows, settings)
    return {"level": "picture", "counts": dict(counts), **result.to_dict(), **extra, "corrected": corrected}


def _text_only(row: Prediction) -> Prediction:
    """The corrected numbers of a text protocol are of the texts too, even where there is a score."""
    return Prediction(**{**vars(row), "score": None})
