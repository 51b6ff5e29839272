"""How close generated explanations are to reference ones: BLEU, ROUGE-L and CIDEr by pycocoevalcap.

The three scorers are plain Python and take raw strings. What of pycocoevalcap starts Java (its PTB tokenizer, METEOR
and SPICE) is not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from deepfake_detectors.evaluation.metric_set import MetricSet

__all__ = ["TEXT_METRICS_ABSENT", "explanation_metrics", "plain_words", "require_pycocoevalcap"]

TEXT_METRICS_ABSENT = {
    "METEOR": "named in the paper, but absent from the published scorer; needs Java",
    "SPICE": "part of the published scorer, but it needs Java and a download of its own; not run",
}
WORD = re.compile(r"\w+(?:['’-]\w+)*")


def require_pycocoevalcap() -> tuple[Any, Any, Any]:
    """Return the classes `Bleu`, `Rouge` and `Cider`.

    Raises:
        ImportError: if pycocoevalcap is not installed, with the command that installs it.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ImportError(
            "Scoring explanations needs pycocoevalcap, which is not installed: pip install 'deepfake-detectors[eval]'"
        ) from error
    return Bleu, Rouge, Cider


def plain_words(text: str) -> str:
    """Lower-cased words without punctuation, one blank between them: "Blurry, unclear." -> "blurry unclear"."""
    return " ".join(WORD.findall(text.lower()))


def explanation_metrics(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> MetricSet:
    """Scores of a whole file, as the published scorer computes them: on strings as they are, cut at white space.

    Args:
        predictions: key -> text.
        references: key -> one or more texts; the same keys.

    Returns:
        `Bleu` (the mean of the four), `Bleu_1` to `Bleu_4`, `ROUGE_L` (all in [0, 1]) and `CIDEr` (in [0, 10]).

    Raises:
        ValueError: for keys of one side only, nothing to score, or an entry without reference.
        ImportError: as `require_pycocoevalcap`.
    """
    check_keys(predictions, references)
    bleu_class, rouge_class, cider_class = require_pycocoevalcap()
    # In the order of the predictions, as published: sums of floats depend on it in the last digits.
    given = {key: [text] for key, text in predictions.items()}
    expected = {key: list(references[key]) for key in predictions}
    bleu, _ = bleu_class(4).compute_score(expected, given, verbose=0)
    rouge, _ = rouge_class().compute_score(expected, given)
    cider, _ = cider_class().compute_score(expected, given)
    result = MetricSet()
    result.add("Bleu", sum(bleu) / len(bleu))
    for order, value in enumerate(bleu, start=1):
        result.add(f"Bleu_{order}", value)
    result.add("ROUGE_L", rouge)
    result.add("CIDEr", cider)
    return result


def check_keys(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Raise a `ValueError` unless predictions and references hold the same keys, each with a reference."""
    if not predictions:
        raise ValueError("There is nothing to evaluate: the prediction file holds no explanation.")
    unknown = [key for key in predictions if key not in references]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(predictions)} explanations have no reference, the first being "
            f"{', '.join(unknown[:3])}. Give the --references that belong to these predictions."
        )
    missing = [key for key in references if key not in predictions]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(references)} references have no explanation, the first being "
            f"{', '.join(missing[:3])}. Finish the prediction file, or give the --references of this subset."
        )
    empty = [key for key, texts in references.items() if not texts]
    if empty:
        raise ValueError(f"References without a text: {', '.join(empty[:3])} ({len(empty)} of {len(references)}).")
