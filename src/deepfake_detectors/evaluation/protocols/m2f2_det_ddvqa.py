"""M2F2-Det's DD-VQA protocol from prediction files alone: judgements and explanations, as published and corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepfake_detectors.evaluation.answer_files import Answer
from deepfake_detectors.evaluation.explanation_scoring import score_texts
from deepfake_detectors.evaluation.metric_set import MetricSet
from deepfake_detectors.evaluation.settings import Settings
from deepfake_detectors.evaluation.text_metrics import METEOR_ABSENT
from deepfake_detectors.evaluation.verdict_metrics import confusion, verdict_metrics, verdict_table
from deepfake_detectors.modeling.verdict_parsing import parse_verdict

__all__ = [
    "EXPLANATION_DEFECTS",
    "JUDGEMENT_DEFECTS",
    "Picture",
    "parse_picture_name",
    "reference_stems",
    "score_explanations",
    "score_judgements",
]

JUDGEMENT_DEFECTS = {
    "substring": 'an answer that contains "real" is read as real: "unrealistic shadows" too',
    "skipped_answers": "an answer without one of the three words is left out instead of being counted as wrong",
}
EXPLANATION_DEFECTS = {
    "mean_bleu": '"Bleu" is the mean of BLEU-1 to BLEU-4, not BLEU-4',
    "raw_tokens": 'texts are cut at white space as they are: "Blurry" and "blurry", "nose" and "nose." are different',
    "question_tells_label": 'the questions state the answer ("This image is fake. ..."): no test of detection',
    "absent_metrics": "METEOR is named in the paper and absent from the scorer; SPICE needs Java and runs on demand",
}
SOURCES = "group of source videos"
REMEDY = "Expected the official file names, <type>_<target>[_<source>].jpg."


class Picture(NamedTuple):
    """What the official name of a picture says."""

    label: str
    manipulation: str
    videos: tuple[str, ...]


def parse_picture_name(stem: str) -> Picture:
    """Label (type 5 is real), manipulation and source videos of `<type>_<target>[_<source>]`.

    Raises:
        ValueError: for a name outside the convention.
    """
    from deepfake_detectors.dataset_scripts.ddvqa import MANIPULATIONS, REAL_TYPE

    kind, *videos = stem.split("_")
    expected = 1 if kind == REAL_TYPE else 2
    if kind not in MANIPULATIONS or len(videos) != expected or not all(video.isdigit() for video in videos):
        types = ", ".join(f"{digit} {name}" for digit, (name, _) in MANIPULATIONS.items())
        raise ValueError(f"{stem!r} is no picture of DD-VQA. {REMEDY} Types: {types}.")
    return Picture("real" if kind == REAL_TYPE else "fake", MANIPULATIONS[kind][0], tuple(videos))


def score_judgements(answers: Sequence[Answer], resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Real-or-fake answers, positive class fake.

    Args:
        answers: one per picture; the labels follow from the official picture names.
        resamples: bootstrap resamples of the corrected accuracy, by group of source videos.
        seed: of the bootstrap.

    Returns:
        `metrics` (published: `accuracy`, `f1`, `precision`, `recall`), `undefined`, `confusion`, `counts`,
        `per_manipulation`, and `corrected` with the same by whole words, undetermined answers counted as wrong.

    Raises:
        ValueError: for no answers, or a name that is not official.
    """
    if not answers:
        raise ValueError("There is nothing to evaluate: the prediction file holds no judgement.")
    pictures = [parse_picture_name(answer.stem) for answer in answers]
    truth = [picture.label for picture in pictures]
    methods = [picture.manipulation for picture in pictures]
    groups = _source_groups(pictures)
    official = [parse_verdict(answer.text, "official") for answer in answers]
    words = [parse_verdict(answer.clean_text, "word") for answer in answers]
    read = [index for index, verdict in enumerate(official) if verdict is not None]
    corrected = verdict_metrics(truth, words, groups, resamples, seed)
    return {
        "parser": "official",
        "positive_class": "fake",
        "counts": {"answers": len(answers), "scored": len(read), "skipped": len(answers) - len(read)},
        **_published_judgement([truth[i] for i in read], [official[i] for i in read]).to_dict(),
        "confusion": confusion(truth, official),
        "per_manipulation": verdict_table(truth, official, methods),
        "corrected": {
            "parser": "word",
            "bootstrap": {"level": 0.95, "resamples": resamples, "seed": seed, "by": SOURCES},
            **corrected.to_dict(),
            "confusion": confusion(truth, words),
            "per_manipulation": verdict_table(truth, words, methods),
        },
    }


def score_explanations(
    answers: Sequence[Answer], references: Mapping[str, Sequence[str]], settings: Settings | None = None
) -> dict[str, Any]:
    """Explanations against reference ones.

    Args:
        answers: with keys; the pictures have official names.
        references: key -> texts; the same keys.
        settings: of the intervals, by group of source videos, and of the metrics that are optional.

    Returns:
        `metrics` (published, see `explanation_metrics`), `undefined` (what was not run, and why), `counts`, and
        `corrected` with the same scorers on lower-cased words without punctuation.

    Raises:
        ValueError: as `score_texts`, or a name that is not official.
    """
    settings = settings or Settings()
    predictions = {str(answer.key): answer.clean_text for answer in answers}
    groups = _source_groups([parse_picture_name(answer.stem) for answer in answers])
    published, corrected = score_texts(predictions, references, groups, settings)
    for result in (published, corrected):
        result.add("METEOR", None, METEOR_ABSENT)
    bootstrap = {"level": 0.95, "resamples": settings.resamples, "seed": settings.seed, "by": SOURCES}
    return {
        "counts": {
            "explanations": len(predictions),
            "pictures": len({answer.stem for answer in answers}),
            "empty": sum(not text for text in predictions.values()),
        },
        **({"bootstrap": bootstrap} if settings.resamples else {}),
        **published.to_dict(),
        "corrected": {"tokens": "lower-cased words without punctuation", **corrected.to_dict()},
    }


def reference_stems(references: Mapping[str, Sequence[str]]) -> list[str]:
    """The pictures that reference keys `<stem>_<n>` are about."""
    return sorted({Path(key.rsplit("_", 1)[0]).name for key in references})


def _source_groups(pictures: Sequence[Picture]) -> list[str]:
    """The group of every picture: videos that any picture joins belong together."""
    from deepfake_detectors.dataset_scripts._builder import components

    source = components(picture.videos for picture in pictures)
    return [source[picture.videos[0]] for picture in pictures]


def _published_judgement(truth: Sequence[str], verdicts: Sequence[str | None]) -> MetricSet:
    """The four printed numbers, of the answers that the published parser reads."""
    result = MetricSet()
    names = {"accuracy": "accuracy", "f1": "f1_fake", "precision": "precision_fake", "recall": "recall_fake"}
    full = verdict_metrics(truth, verdicts, resamples=0) if truth else None
    for name, source in names.items():
        if full is None:
            result.add(name, None, "no answer holds a word that the published parser looks for")
        else:
            result.add(name, full.value(source), full.undefined.get(source))
    return result
