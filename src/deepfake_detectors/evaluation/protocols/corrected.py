"""Definition of protocols, and the corrected one: every image counts once, and nothing is tuned on the test set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.bootstrap import draw_weights, percentile_interval
from deepfake_detectors.evaluation.curve import ScoreCurve
from deepfake_detectors.evaluation.localisation import MARKED_ON_REAL, PER_PICTURE
from deepfake_detectors.evaluation.metrics import (
    FALSE_POSITIVE_RATES,
    LOWER_IS_BETTER,
    Settings,
    category_table,
    manipulation_table,
    remarks,
    score_metrics,
)
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups, labels_of, scores_of
from deepfake_detectors.evaluation.verdicts import category_verdicts, confusion, verdict_metrics, verdict_table
from deepfake_detectors.evaluation.videos import video_metrics
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.modeling.verdict_parsing import parse_verdict

__all__ = [
    "CORRECTED",
    "FAKE_IS_ONE",
    "OPTIONAL_TEXT_METRICS",
    "REAL_IS_ONE",
    "Protocol",
    "higher",
    "score_corrected",
]

OPTIONAL_TEXT_METRICS = ("METEOR", "SPICE", "similarity")
FAKE_IS_ONE = {0: "real", 1: "fake"}
REAL_IS_ONE = {0: "fake", 1: "real"}


@dataclass(frozen=True)
class Protocol:
    """One set of rules.

    Attributes:
        name: value for the parameter `protocol`.
        summary: one sentence.
        source: publication of the rules.
        positive_class: positive class of F1, precision and recall.
        needs: required field of a prediction: `"score"`, `"text"`, or `"either"`.
        metrics: name -> which is better, `"higher"` or `"lower"`.
        defects: reproduced defects of the published scorer, name -> sentence.
        integer_labels: meaning of the labels 0 and 1 in its files; `None` if labels must be words.
        score: computes results from predictions.
        defects_of_rows: those of `defects` that concern predictions of images; `None` for all of them.
        rouge_score: whether explanations are also compared with rouge_score's ROUGE-L.
        official_answers: whether it also scores M2F2-Det's published answer files.
    """

    name: str
    summary: str
    source: str
    positive_class: str
    needs: str
    metrics: Mapping[str, str]
    score: Callable[[Sequence[Prediction], Settings], dict[str, Any]]
    defects: Mapping[str, str] = field(default_factory=dict)
    defects_of_rows: Mapping[str, str] | None = None
    integer_labels: Mapping[int, str] | None = None
    rouge_score: bool = False
    official_answers: bool = False

    def describe(self) -> dict[str, Any]:
        """Return the entry for `results.json`."""
        keys = ("name", "summary", "source", "positive_class", "metrics", "defects")
        found = {key: getattr(self, key) for key in keys}
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in found.items()}


def higher(*names: str) -> dict[str, str]:
    """Return entries for `Protocol.metrics` for metrics where higher is better."""
    return dict.fromkeys(names, "higher")


def score_corrected(rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
    """Compute metrics of the scores, and of videos with several frames; without scores, of the texts.

    Raises:
        ValueError: if some rows have scores and others only texts.
    """
    by, groups = bootstrap_groups(rows)
    labels = labels_of(rows)
    common: dict[str, Any] = {"num_real": int((labels == 0).sum()), "num_fake": int((labels == 1).sum())}
    if settings.resamples:
        common["bootstrap"] = {"level": 0.95, "resamples": settings.resamples, "seed": settings.seed, "by": by}
    categories = [row.category or "no category" for row in rows]
    if all(row.score is None for row in rows):
        served = None if settings.answers_of is None else FAMILIES[settings.answers_of].load("served")
        read = parse_verdict if served is None else served.read
        truth, said = [row.label for row in rows], [read(str(row.text)) for row in rows]
        return {
            **common,
            "level": "picture",
            "parser": settings.answers_of or "word",
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


CORRECTED = Protocol(
    name="corrected",
    summary="Every image counts once, undetermined answers are wrong, thresholds are not tuned on the test set.",
    source="this package",
    positive_class="fake",
    needs="either",
    metrics={
        **higher("accuracy", "balanced_accuracy", "auc", "ap", *FALSE_POSITIVE_RATES),
        **higher(*(f"{name}_{side}" for name in ("f1", "precision", "recall") for side in ("fake", "real"))),
        **higher("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "Bleu_mean", "ROUGE_L", "CIDEr"),
        **higher(*OPTIONAL_TEXT_METRICS),
        **higher("rouge_l_f", *PER_PICTURE, *(f"{name}_pooled" for name in PER_PICTURE)),
        **dict.fromkeys((*sorted(LOWER_IS_BETTER), MARKED_ON_REAL), "lower"),
    },
    score=score_corrected,
    official_answers=True,
)
