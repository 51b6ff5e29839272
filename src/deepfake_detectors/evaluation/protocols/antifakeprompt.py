"""AntifakePrompt's published scorer: accuracy per single-class set, and the plain mean over the sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepfake_detectors.evaluation.metrics import MetricSet, Settings, accuracy
from deepfake_detectors.evaluation.predictions import Prediction, labels_of, scores_of
from deepfake_detectors.evaluation.protocols.corrected import FAKE_IS_ONE, Protocol, higher, score_corrected

__all__ = ["ANTIFAKEPROMPT", "score_antifakeprompt"]


def score_antifakeprompt(rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
    """Compute accuracy per set at 0.5, and their plain mean.

    Sets are defined by `set`, or else by category, or else by manipulation.

    Raises:
        ValueError: for a set with both classes.
    """
    labels, scores = labels_of(rows), scores_of(rows)
    names = [row.set or row.category or row.method for row in rows]
    table: dict[str, dict[str, Any]] = {}
    for name in sorted(set(names)):
        chosen = [index for index, other in enumerate(names) if other == name]
        classes = sorted({rows[index].label for index in chosen})
        if len(classes) > 1:
            raise ValueError(
                f"This protocol needs single-class sets, but {name!r} has both classes. Use different sets for real "
                "and fake images (the field 'set' of a prediction)."
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


ANTIFAKEPROMPT = Protocol(
    name="paper:antifakeprompt",
    summary="Accuracy per single-class set at P(fake) = 0.5, and the plain mean over the sets.",
    source="AntifakePrompt (arXiv 2310.17419), published scripts and result tables",
    positive_class="none: every set has one class",
    needs="score",
    metrics=higher("average"),
    score=score_antifakeprompt,
    defects={
        "sets_weigh_alike": "the average ignores the size of sets; there are two real sets and many fake ones, so "
        "calling everything fake scores high",
        "held_in_sets": "the average includes sets used for training",
    },
    integer_labels=FAKE_IS_ONE,
)
