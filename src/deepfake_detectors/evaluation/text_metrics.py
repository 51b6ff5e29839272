"""How close generated explanations are to reference ones: BLEU, ROUGE-L and CIDEr by pycocoevalcap.

The three scorers are plain Python and take raw strings. What of pycocoevalcap starts Java is not used (its PTB
tokenizer, METEOR) or only when asked for (SPICE).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.bootstrap import draw_weights, percentile_interval
from deepfake_detectors.evaluation.metric_set import MetricSet

__all__ = [
    "METEOR_ABSENT",
    "SPICE_ABSENT",
    "check_keys",
    "explanation_metrics",
    "plain_words",
    "require_pycocoevalcap",
    "spice_scores",
]

METEOR_ABSENT = "named in the paper, but absent from the published scorer; needs Java"
SPICE_ABSENT = "needs Java and a download of its own; ask for it with --spice"
SPICE_MODELS = "stanford-corenlp-3.6.0-models.jar"
# pycocoevalcap's guards against a division by zero, so that resampled BLEU is its BLEU.
SMALL, TINY = 1e-9, 1e-15
WORD = re.compile(r"\w+(?:['’-]\w+)*")


def require_pycocoevalcap() -> tuple[Any, Any, Any]:
    """Return the classes `BleuScorer`, `Rouge` and `Cider`.

    Raises:
        ImportError: if pycocoevalcap is not installed, with the command that installs it.
    """
    try:
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ImportError(
            "Scoring explanations needs pycocoevalcap, which is not installed: pip install 'deepfake-detectors[eval]'"
        ) from error
    return BleuScorer, Rouge, Cider


def plain_words(text: str) -> str:
    """Lower-cased words without punctuation, one blank between them: "Blurry, unclear." -> "blurry unclear"."""
    return " ".join(WORD.findall(text.lower()))


def explanation_metrics(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    groups: Sequence[str] | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> MetricSet:
    """Scores of a whole file, as the published scorer computes them: on strings as they are, cut at white space.

    Args:
        predictions: key -> text.
        references: key -> one or more texts; the same keys.
        groups: `(n,)`, texts about the same source material: whole groups are resampled.
        resamples: bootstrap resamples of the 95 % intervals; 0 for none. The document frequencies of CIDEr stay those
            of the whole file.
        seed: of the bootstrap.

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
    scorer = bleu_class(n=4)
    for key, text in predictions.items():
        scorer += (text, expected[key])
    bleu, _ = scorer.compute_score(option="closest", verbose=0)
    rouge, rouge_each = rouge_class().compute_score(expected, given)
    cider, cider_each = cider_class().compute_score(expected, given)
    values = {"Bleu": sum(bleu) / len(bleu)}
    values |= {f"Bleu_{order}": value for order, value in enumerate(bleu, start=1)}
    values |= {"ROUGE_L": rouge, "CIDEr": cider}
    drawn: dict[str, np.ndarray] = {}
    if resamples:
        # Of float32 sums nothing would be gained, and integers would be copied at every product.
        counts = np.array([_bleu_counts(item) for item in scorer.ctest], dtype=np.float64)
        each = np.stack([np.asarray(rouge_each), np.asarray(cider_each)], axis=1)
        draws = list(draw_weights(np.zeros(len(given)), groups, resamples, seed))
        scores = _bleu(np.concatenate([weights @ counts for weights in draws]))
        means = np.concatenate([weights @ each / weights.sum(axis=1, keepdims=True) for weights in draws])
        drawn = {"Bleu": scores.mean(axis=1), "ROUGE_L": means[:, 0], "CIDEr": means[:, 1]}
        drawn |= {f"Bleu_{order + 1}": scores[:, order] for order in range(scores.shape[1])}
    result = MetricSet()
    for name, value in values.items():
        result.add(name, value, interval=percentile_interval(drawn[name]) if drawn else None)
    return result


def spice_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """SPICE of each text by pycocoevalcap, in [0, 1].

    Raises:
        ValueError: if Java or its language models are missing (the message says how to get them), or if it failed.
        ImportError: as `require_pycocoevalcap`.
    """
    require_pycocoevalcap()
    from pycocoevalcap.spice import spice

    if shutil.which("java") is None:
        raise ValueError("SPICE needs Java 8, and there is no `java` on the PATH. Install it, or leave out --spice.")
    # Its constructor would fetch half a gigabyte without a word.
    if not (Path(spice.__file__).parent / "lib" / SPICE_MODELS).is_file():
        raise ValueError(
            "SPICE needs the Stanford CoreNLP models, which are not there. Fetch them (about 500 MB): "
            "python -m pycocoevalcap.spice.get_stanford_models"
        )
    check_keys(predictions, references)
    try:
        _, scores = spice.Spice().compute_score(
            {key: list(references[key]) for key in predictions}, {key: [text] for key, text in predictions.items()}
        )
    except (subprocess.CalledProcessError, OSError) as error:
        raise ValueError(
            f"SPICE failed ({error}). It is tested by its authors with Java 8 and 8 GB of memory."
        ) from error
    return {key: float(entry["All"]["f"]) for key, entry in zip(sorted(predictions), scores, strict=True)}


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


def _bleu_counts(item: Mapping[str, Any]) -> list[float]:
    """Length, length of the closest reference, candidate n-grams of four orders, and the matched ones."""
    length = item["testlen"]
    closest = min((abs(reference - length), reference) for reference in item["reflen"])[1]
    return [length, closest, *item["guess"], *item["correct"]]


def _bleu(totals: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4 `(rows, 4)` of summed counts `(rows, 10)`."""
    length, closest, guessed, matched = totals[:, :1], totals[:, 1:2], totals[:, 2:6], totals[:, 6:]
    precision = np.cumprod((matched + TINY) / (guessed + SMALL), axis=1) ** (1 / np.arange(1, 5))
    ratio = (length + TINY) / (closest + SMALL)
    return precision * np.exp(np.minimum(0.0, 1 - 1 / ratio))
