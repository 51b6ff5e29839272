"""FakeVLM's published scorer: verdicts parsed from texts, with its defects, next to the corrected numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deepfake_detectors.evaluation.metrics import MetricSet, Settings
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.protocols.corrected import REAL_IS_ONE, Protocol, higher, score_corrected
from deepfake_detectors.evaluation.verdicts import category_verdicts, confusion, verdict_metrics
from deepfake_detectors.modeling.verdict_parsing import UNDETERMINED, parse_fakevlm_verdict

__all__ = ["FAKEVLM", "fakevlm_verdict", "score_fakevlm", "with_coin"]


def fakevlm_verdict(text: str, holds_prompt: bool = False) -> str | None:
    """Return `"real"`, `"fake"`, or `None` where the published code chooses at random.

    The first of the first two sentences (text up to a full stop) that contains "real", else "fake", decides; "not
    real" and "unrealistic" are read as real.

    Args:
        text: the answer.
        holds_prompt: `text` includes the prompt; only the part after its last question mark counts.
    """
    verdict = parse_fakevlm_verdict(text, "official", holds_prompt=holds_prompt)
    return None if verdict == UNDETERMINED else verdict


def with_coin(verdicts: Sequence[str | None], seed: int = 0) -> list[str]:
    """Replace every `None` by a random verdict, as FakeVLM's code does, but with a fixed seed."""
    generator = random.Random(seed)
    return [verdict if verdict is not None else generator.choice(("fake", "real")) for verdict in verdicts]


def score_fakevlm(rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
    """Compute the published accuracies, and F1 with real as the positive class."""
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
        # Texts are used even if there is a score.
        "corrected": score_corrected([replace(row, score=None) for row in rows], settings),
    }


FAKEVLM = Protocol(
    name="paper:fakevlm",
    summary="Accuracy of verdicts parsed from texts: total, per class and per category.",
    source="FakeVLM (FakeClue), published scripts; they do not include F1, which matches the paper with real as "
    "positive",
    positive_class="real",
    needs="text",
    metrics=higher("accuracy", "accuracy_real", "accuracy_fake", "f1", "f1_fake", "f1_macro"),
    score=score_fakevlm,
    defects={
        "coin": "an answer without a verdict gets a random one; published without a seed, here with one",
        "substring": 'a sentence that contains "real" is read as real: this includes "not real" and "unrealistic"',
        "label_polarity": "the label 1 means real in its files, the opposite of most others",
    },
    integer_labels=REAL_IS_ONE,
    rouge_score=True,
)
