"""Explanations against reference ones: by words, and where asked for by meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from deepfake_detectors.evaluation.bootstrap import mean_interval
from deepfake_detectors.evaluation.metric_set import MetricSet
from deepfake_detectors.evaluation.settings import Settings
from deepfake_detectors.evaluation.text_metrics import (
    SPICE_ABSENT,
    check_keys,
    explanation_metrics,
    plain_words,
    spice_scores,
)

__all__ = ["rouge_l_f", "score_texts"]


def score_texts(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    groups: Sequence[str] | None,
    settings: Settings,
) -> tuple[MetricSet, MetricSet]:
    """Metrics of the texts as they are, and of their lower-cased words without punctuation.

    `similarity` and `SPICE`, which cut the texts by rules of their own, are the same in both.

    Args:
        predictions: key -> text.
        references: key -> one or more texts; the same keys.
        groups: `(n,)`, texts about the same source material, in the order of `predictions`.
        settings: what else to compute.

    Raises:
        ValueError: as `explanation_metrics`, `SentenceEncoder` and `spice_scores`.
        ImportError: if a library is not installed.
    """
    check_keys(predictions, references)
    shared = MetricSet()
    # First what may be missing on this machine, before the rest takes its time.
    if settings.encoder is not None:
        from deepfake_detectors.evaluation.sentence_similarity import SentenceEncoder, sentence_similarities

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
    # Under a name of its own: "Bleu" alone would be taken for BLEU-4.
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
        result.add(name, None, f"{values.size - finite.size} of {values.size} texts got no value")
        return
    result.add(name, float(values.mean()), interval=mean_interval(values, groups, settings.resamples, settings.seed))
