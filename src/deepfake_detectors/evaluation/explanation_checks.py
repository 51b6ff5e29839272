"""Check whether explanations are about the image: how generic they are, and how they score on other images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.bootstrap import mean_interval
from deepfake_detectors.evaluation.metrics import MetricSet, Settings
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups
from deepfake_detectors.evaluation.texts import explanation_metrics, plain_words

__all__ = ["REGIONS", "check_explanations", "named_regions", "others_of"]

# Region -> its names in explanations. Whole words, after `plain_words`.
REGIONS = {
    "eyes": r"eyes?|eyelids?|pupils?|iris(?:es)?|gaze",
    "eyebrows": r"(?:eye)?brows?",
    "nose": r"nose|nostrils?",
    "mouth": r"mouth|lips?|smile",
    "teeth": r"teeth|tooth",
    "skin": r"skin|cheeks?|wrinkles?|complexion",
    "chin": r"chin|jaw|jawline|beard",
    "hair": r"hair|hairline|forehead",
    "ears": r"ears?|earrings?",
    "hands": r"hands?|fingers?",
    "background": r"background|backdrop",
    "text": r"text|letters?|lettering|writing",
    "light": r"light(?:ing)?|shadows?|reflections?",
    "edges": r"edges?|borders?|boundary|boundaries|contours?|outlines?",
}
PATTERNS = {name: re.compile(rf"\b(?:{words})\b") for name, words in REGIONS.items()}
SCORES = ("ROUGE_L", "CIDEr")
FEWEST = 2  # minimum number of images for a control


def named_regions(text: str) -> set[str]:
    """Return the keys of `REGIONS` that a text mentions in any sense."""
    words = plain_words(text)
    return {name for name, pattern in PATTERNS.items() if pattern.search(words)}


def others_of(count: int, seed: int) -> list[int]:
    """Return for each of `count` (2 or more) positions another one for the control; each is used once."""
    order = np.random.default_rng(seed).permutation(count)
    others = np.empty(count, dtype=int)
    others[order] = np.roll(order, 1)  # the next one on a random circle, which is never itself
    return others.tolist()


def check_explanations(
    rows: Sequence[Prediction], references: Mapping[str, Sequence[str]] | None, settings: Settings
) -> dict[str, Any]:
    """Measure how generic explanations are, in addition to comparing them with references.

    The control ignores the image: for every image it uses the detector's answer about another one. Its ROUGE-L, CIDEr
    and region scores come from phrases that always fit.

    Args:
        rows: with texts.
        references: id -> reference explanations, or `None`.
        settings: seed of the control and settings of the intervals.

    Returns:
        `commonest` (the most common answer), `metrics` and `undefined`. All shares are in [0, 1]:
        `commonest_answer` and `distinct_answers`; `same_answer_as_twin`, for fakes that share source material with a
        real image; with references `region_agreement` (Jaccard index of the regions named in answer and reference,
        using the best reference) and, for the control, `ROUGE_L_of_control`, `CIDEr_of_control` and
        `region_agreement_of_control`.

    Raises:
        ValueError: for a row without a text.
    """
    without = [row.id for row in rows if row.text is None]
    if without or not rows:
        raise ValueError(f"{len(without)} of {len(rows)} predictions have no text, such as {without[:1]}.")
    texts = {row.id: str(row.text) for row in rows}
    words = {id: plain_words(text) for id, text in texts.items()}
    commonest, times = Counter(words.values()).most_common(1)[0]
    result = MetricSet()
    result.add("commonest_answer", times / len(words))
    result.add("distinct_answers", len(set(words.values())) / len(words))
    _add_twins(result, rows, words, settings)
    if references is not None:
        _add_control(result, rows, texts, references, settings)
    return {"commonest": commonest, **result.to_dict()}


def _add_twins(result: MetricSet, rows: Sequence[Prediction], words: Mapping[str, str], settings: Settings) -> None:
    """A fake and its original should not get the same answer."""
    real: dict[str, set[str]] = {}
    for row in rows:
        if row.label == "real" and row.group_id is not None:
            real.setdefault(row.group_id, set()).add(words[row.id])
    fakes = [row for row in rows if row.label == "fake" and row.group_id in real]
    if not fakes:
        result.add("same_answer_as_twin", None, "no fake shares its source material with a real image of the dataset")
        return
    same = np.array([words[row.id] in real[str(row.group_id)] for row in fakes], dtype=np.float64)
    groups = [str(row.group_id) for row in fakes]
    result.add(
        "same_answer_as_twin",
        float(same.mean()),
        interval=mean_interval(same, groups, settings.resamples, settings.seed),
    )


def _add_control(
    result: MetricSet,
    rows: Sequence[Prediction],
    texts: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    settings: Settings,
) -> None:
    names = ["region_agreement", *(f"{name}_of_control" for name in (*SCORES, "region_agreement"))]
    known = [row for row in rows if row.id in references]
    if len(known) < FEWEST:
        for name in names:
            result.add(name, None, f"{len(known)} images have references, and a control needs {FEWEST}")
        return
    groups = bootstrap_groups(known)[1]

    def add_regions(name: str, answers: Mapping[str, str]) -> None:
        agreed = np.array([_agreement(answers[row.id], references[row.id]) for row in known])
        interval = mean_interval(agreed, groups, settings.resamples, settings.seed)
        result.add(name, float(agreed.mean()), interval=interval)

    order = others_of(len(known), settings.seed)
    others = {row.id: texts[known[other].id] for row, other in zip(known, order, strict=True)}
    add_regions("region_agreement", texts)
    found = explanation_metrics(
        {id: plain_words(text) for id, text in others.items()},
        {id: [plain_words(text) for text in references[id]] for id in others},
        groups,
        settings.resamples,
        settings.seed,
    )
    for name in SCORES:
        result.metrics[f"{name}_of_control"] = found.metrics[name]
    add_regions("region_agreement_of_control", others)


def _agreement(answer: str, references: Sequence[str]) -> float:
    """Return the Jaccard index of the named regions, 1 if neither names any."""
    said = named_regions(answer)
    expected = [named_regions(text) for text in references]
    return max((len(said & named) / len(said | named) if said | named else 1.0) for named in expected)
