"""Similarity of generated explanations to references: BLEU, ROUGE-L, CIDEr, and optionally SPICE and meaning.

pycocoevalcap's three scorers are plain Python and take raw strings. Its parts that start Java are not used (PTB
tokenizer, METEOR) or only on request (SPICE). Meaning is the cosine of sentence embeddings by any encoder.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from deepfake_detectors.evaluation.bootstrap import draw_weights, mean_interval, percentile_interval
from deepfake_detectors.evaluation.metrics import MetricSet, Settings
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups

__all__ = [
    "METEOR_ABSENT",
    "SPICE_ABSENT",
    "SUGGESTED_ENCODER",
    "SentenceEncoder",
    "check_keys",
    "explanation_metrics",
    "explanation_results",
    "plain_words",
    "require_pycocoevalcap",
    "rouge_l_f",
    "score_texts",
    "sentence_similarities",
    "spice_scores",
]

METEOR_ABSENT = "named in the paper, but absent from the published scorer; needs Java"
SPICE_ABSENT = "needs Java and a separate download; enable it with `spice`"
SPICE_MODELS = "stanford-corenlp-3.6.0-models.jar"
# FakeVLM's paper gives a "CSS" without naming its encoder; this one is the usual choice, so no parity is claimed.
SUGGESTED_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
BATCH = 64  # texts per batch
# pycocoevalcap's guards against a division by zero, so that resampled BLEU is its BLEU.
SMALL, TINY = 1e-9, 1e-15
WORD = re.compile(r"\w+(?:['’-]\w+)*")


def explanation_results(
    rows: Sequence[Prediction], references: Mapping[str, Sequence[str]], settings: Settings, rouge_score: bool = False
) -> dict[str, Any]:
    """Compare explanations with references, as lower-cased words without punctuation.

    Args:
        rows: predictions with texts.
        references: id -> one or more texts; the same ids.
        settings: settings of the intervals, and optional metrics.
        rouge_score: add `rouge_l_f`. FakeVLM's ROUGE-L is commonly computed like this; its paper does not say how.

    Returns:
        `counts`, `tokens`, `bootstrap`, `metrics` and `undefined`.

    Raises:
        ValueError: for an image without a text or without a reference, and as `score_texts`.
    """
    without = [row.id for row in rows if row.text is None]
    if without:
        raise ValueError(
            f"{len(without)} of {len(rows)} predictions have no text to compare with the references, such as "
            f"{without[0]}. Create texts with `explain`."
        )
    by, groups = bootstrap_groups(rows)
    texts = {row.id: str(row.text) for row in rows}
    _, found = score_texts(texts, references, groups, settings)
    if rouge_score:
        found.metrics |= rouge_l_f(texts, references, groups, settings).metrics
    return {
        "counts": {"explanations": len(texts), "empty": sum(not text.strip() for text in texts.values())},
        "tokens": "lower-cased words without punctuation",
        **({"bootstrap": {"level": 0.95, "resamples": settings.resamples, "by": by}} if settings.resamples else {}),
        **found.to_dict(),
    }


def score_texts(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    groups: Sequence[str] | None,
    settings: Settings,
) -> tuple[MetricSet, MetricSet]:
    """Compute metrics of the original texts, and of their lower-cased words without punctuation.

    `similarity` and `SPICE`, which have their own tokenisation, are the same in both.

    Args:
        predictions: key -> text.
        references: key -> one or more texts; the same keys.
        groups: `(n,)`, texts about the same source material, in the order of `predictions`.
        settings: optional metrics to compute.

    Raises:
        ValueError: as `explanation_metrics`, `SentenceEncoder` and `spice_scores`.
        ImportError: if a library is not installed.
    """
    check_keys(predictions, references)
    shared = MetricSet()
    # Optional dependencies first, before slow computations.
    if settings.encoder is not None:
        encoder = SentenceEncoder(settings.encoder)
        values = sentence_similarities(encoder, list(predictions.values()), [references[key] for key in predictions])
        _add_mean(shared, "similarity", values, groups, settings)
    if settings.spice:
        scores = spice_scores(predictions, references)
        _add_mean(shared, "SPICE", np.array([scores[key] for key in predictions]), groups, settings)
    else:
        shared.add("SPICE", None, SPICE_ABSENT)
    bootstrap = (groups, settings.resamples, settings.seed)
    raw = explanation_metrics(predictions, references, *bootstrap)
    words = explanation_metrics(
        {key: plain_words(text) for key, text in predictions.items()},
        {key: [plain_words(text) for text in references[key]] for key in predictions},
        *bootstrap,
    )
    # With a separate name, because "Bleu" alone would be mistaken for BLEU-4.
    words.metrics["Bleu_mean"] = words.metrics.pop("Bleu")
    for result in (raw, words):
        result.metrics |= shared.metrics
        result.undefined |= shared.undefined
    return raw, words


def rouge_l_f(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    groups: Sequence[str] | None,
    settings: Settings,
) -> MetricSet:
    """`rouge_l_f`: ROUGE-L F-measure by rouge_score, without stemmer, of the closest reference, in [0, 1].

    Raises:
        ImportError: if rouge_score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ImportError(
            "This ROUGE-L needs rouge_score, which is not installed: pip install 'deepfake-detectors[eval]'"
        ) from error
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    values = [scorer.score_multi(list(references[key]), text)["rougeL"].fmeasure for key, text in predictions.items()]
    result = MetricSet()
    _add_mean(result, "rouge_l_f", np.array(values), groups, settings)
    return result


def _add_mean(
    result: MetricSet, name: str, values: np.ndarray, groups: Sequence[str] | None, settings: Settings
) -> None:
    finite = values[np.isfinite(values)]
    if finite.size < values.size:
        result.add(name, None, f"{values.size - finite.size} of {values.size} texts have no value")
        return
    result.add(name, float(values.mean()), interval=mean_interval(values, groups, settings.resamples, settings.seed))


def require_pycocoevalcap() -> tuple[Any, Any, Any]:
    """Return the classes `BleuScorer`, `Rouge` and `Cider`.

    Raises:
        ImportError: if pycocoevalcap is not installed, with the command to install it.
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
    """Return lower-cased words without punctuation, joined by single spaces: "Blurry, unclear." -> "blurry
    unclear"."""
    return " ".join(WORD.findall(text.lower()))


def explanation_metrics(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    groups: Sequence[str] | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> MetricSet:
    """Compute the scores of a whole file like the published scorer, on unmodified strings split at white space.

    Args:
        predictions: key -> text.
        references: key -> one or more texts; the same keys.
        groups: `(n,)`, texts about the same source material: whole groups are resampled.
        resamples: bootstrap resamples for the 95 % intervals; 0 for none. The document frequencies of CIDEr stay those
            of the whole file.
        seed: seed of the bootstrap.

    Returns:
        `Bleu` (the mean of the four), `Bleu_1` to `Bleu_4`, `ROUGE_L` (all in [0, 1]) and `CIDEr` (in [0, 10]).

    Raises:
        ValueError: for keys that are only on one side, empty input, or an entry without a reference.
        ImportError: as for `require_pycocoevalcap`.
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
        ImportError: as for `require_pycocoevalcap`.
    """
    require_pycocoevalcap()
    from pycocoevalcap.spice import spice

    if shutil.which("java") is None:
        raise ValueError("SPICE needs Java 8, and there is no `java` on the PATH. Install it, or leave out `spice`.")
    # Its constructor would silently download half a gigabyte.
    if not (Path(spice.__file__).parent / "lib" / SPICE_MODELS).is_file():
        raise ValueError(
            "SPICE needs the Stanford CoreNLP models, which are missing. Download them (about 500 MB): "
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
    """Raise a `ValueError` unless predictions and references have the same keys, each with a reference."""
    if not predictions:
        raise ValueError("There is nothing to evaluate: the prediction file does not contain explanations.")
    unknown = [key for key in predictions if key not in references]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(predictions)} explanations have no reference, such as {', '.join(unknown[:3])}. "
            "Pass the `references` for these predictions."
        )
    missing = [key for key in references if key not in predictions]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(references)} references have no explanation, such as {', '.join(missing[:3])}. "
            "Complete the prediction file, or pass the `references` for this subset."
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


class SentenceEncoder:
    """Mean of the last hidden states over the tokens of a text, at length 1, as sentence-transformers' models use.

    Args:
        name: folder or Hub id of an encoder with its tokenizer.

    Raises:
        ValueError: naming it, if it cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            self.model = AutoModel.from_pretrained(name, trust_remote_code=False).eval()
        except (OSError, ValueError, ImportError) as error:
            first = " ".join(str(error).split())
            raise ValueError(
                f"the sentence encoder {name!r} could not be loaded: {first} Without a network connection, download "
                f"it first (hf download {SUGGESTED_ENCODER}), or pass the folder of an encoder."
            ) from error
        self.name = name
        # Some tokenizers do not say how much their model reads; two positions are for those that count from 2.
        positions = getattr(self.model.config, "max_position_embeddings", self.tokenizer.model_max_length + 2) - 2
        self.longest = min(self.tokenizer.model_max_length, positions)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float64 `(texts, width)`, each row of length 1 (of zeros for a text without tokens)."""
        rows = []
        for start in range(0, len(texts), BATCH):
            inputs: Any = self.tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=self.longest,
                return_tensors="pt",
            )
            states = self.model(**inputs).last_hidden_state.double()
            kept = inputs["attention_mask"][..., None].double()
            rows.append((states * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1.0))
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1).numpy()


def sentence_similarities(
    encoder: SentenceEncoder, texts: Sequence[str], references: Sequence[Sequence[str]]
) -> np.ndarray:
    """Cosine in [-1, 1] of each text with the closest of its references; float64 `(n,)`."""
    said = encoder.encode(texts)
    flat = encoder.encode([reference for several in references for reference in several])
    result, start = np.empty(len(texts)), 0
    for place, several in enumerate(references):
        result[place] = (flat[start : start + len(several)] @ said[place]).max()
        start += len(several)
    return result
