"""LVLM-DFD's published scorer: AUC of the scores, and verdicts from its text searches, with their defects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from deepfake_detectors.evaluation.curve import one_class_reason
from deepfake_detectors.evaluation.metrics import MetricSet, Settings, auc
from deepfake_detectors.evaluation.predictions import Prediction, labels_of, scores_of
from deepfake_detectors.evaluation.protocols.corrected import FAKE_IS_ONE, Protocol, higher, score_corrected
from deepfake_detectors.evaluation.verdicts import confusion, verdict_metrics
from deepfake_detectors.modeling.verdict_parsing import parse_answer

__all__ = ["LVLM_DFD", "lvlm_dfd_verdicts", "score_lvlm_dfd"]


def lvlm_dfd_verdicts(texts: Sequence[str]) -> list[str | None]:
    """Parse the answers of LVLM-DFD in order: six case-sensitive substring searches, of which the last hit decides.

    An answer without a hit gets the verdict of the image before it. If the first answer has no hit, the published code
    stops with an error, and this returns `None`.
    """
    verdicts: list[str | None] = []
    current: str | None = None
    for text in texts:
        current = parse_answer(text, "legacy") or current
        verdicts.append(current)
    return verdicts


def score_lvlm_dfd(rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
    """Compute the AUC of the scores and the accuracy of the texts, as available."""
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


LVLM_DFD = Protocol(
    name="paper:lvlm_dfd",
    summary="AUC of the classifier's P(fake); verdicts from the published text searches.",
    source="LVLM-DFD (ICML 2025), published inference script; whether its AUC is over frames or videos is not "
    "published, so both are given",
    positive_class="fake",
    needs="either",
    metrics=higher("auc", "text_accuracy"),
    score=score_lvlm_dfd,
    defects={
        "substring": '"not" is found inside "another" and "notable", "No" inside "Nose" and "Not"',
        "previous_verdict": "an answer without a hit gets the verdict of the image before it",
    },
    integer_labels=FAKE_IS_ONE,
)
