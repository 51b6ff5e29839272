"""M2F2-Det's published scorers: DD-VQA judgements and explanations from answer files, and AUC over videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepfake_detectors.evaluation.metrics import MetricSet, Settings
from deepfake_detectors.evaluation.predictions import (
    Answer,
    Prediction,
    check_ids,
    kinds_of_files,
    labels_of,
    read_answers,
    read_references,
    scores_of,
)
from deepfake_detectors.evaluation.protocols.corrected import (
    OPTIONAL_TEXT_METRICS,
    Protocol,
    higher,
    score_corrected,
)
from deepfake_detectors.evaluation.texts import METEOR_ABSENT, score_texts
from deepfake_detectors.evaluation.verdicts import confusion, verdict_metrics, verdict_table
from deepfake_detectors.evaluation.videos import VIDEO_DEFECTS, official_video_metrics
from deepfake_detectors.modeling.verdict_parsing import parse_verdict

__all__ = [
    "EXPLANATION_DEFECTS",
    "JUDGEMENT_DEFECTS",
    "M2F2_DET",
    "Picture",
    "evaluate_answers",
    "parse_picture_name",
    "reference_stems",
    "score_explanations",
    "score_judgements",
    "score_m2f2_det_videos",
]

JUDGEMENT_DEFECTS = {
    "substring": 'an answer that contains "real" is read as real, even "unrealistic shadows"',
    "skipped_answers": "an answer without one of the three words is left out instead of being counted as wrong",
}
EXPLANATION_DEFECTS = {
    "mean_bleu": '"Bleu" is the mean of BLEU-1 to BLEU-4, not BLEU-4',
    "raw_tokens": 'texts are split at white space only: "Blurry" and "blurry", "nose" and "nose." are different',
    "question_tells_label": 'the questions state the answer ("This image is fake. ..."): not a test of detection',
    "absent_metrics": "METEOR is named in the paper and absent from the scorer; SPICE needs Java and runs on demand",
}
SOURCES = "group of source videos"
REMEDY = "Expected the official file names, <type>_<target>[_<source>].jpg."


class Picture(NamedTuple):
    """Information in the official name of an image."""

    label: str
    manipulation: str
    videos: tuple[str, ...]


def parse_picture_name(stem: str) -> Picture:
    """Return label (type 5 is real), manipulation and source videos of `<type>_<target>[_<source>]`.

    Raises:
        ValueError: for a name that does not follow the convention.
    """
    from deepfake_detectors.dataset_scripts.ddvqa import MANIPULATIONS, REAL_TYPE  # needs the extra [datasets]

    kind, *videos = stem.split("_")
    expected = 1 if kind == REAL_TYPE else 2
    if kind not in MANIPULATIONS or len(videos) != expected or not all(video.isdigit() for video in videos):
        types = ", ".join(f"{digit} {name}" for digit, (name, _) in MANIPULATIONS.items())
        raise ValueError(f"{stem!r} is not an image of DD-VQA. {REMEDY} Types: {types}.")
    return Picture("real" if kind == REAL_TYPE else "fake", MANIPULATIONS[kind][0], tuple(videos))


def score_judgements(answers: Sequence[Answer], resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Score real-or-fake answers, positive class fake.

    Args:
        answers: one per image; labels come from the official image names.
        resamples: bootstrap resamples of the corrected accuracy, by group of source videos.
        seed: seed of the bootstrap.

    Returns:
        `metrics` (published: `accuracy`, `f1`, `precision`, `recall`), `undefined`, `confusion`, `counts`,
        `per_manipulation`, and `corrected` with the same based on whole words, where undetermined answers count as
        wrong.

    Raises:
        ValueError: without answers, or for an unofficial name.
    """
    if not answers:
        raise ValueError("There is nothing to evaluate: the prediction file does not contain judgements.")
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
    """Score explanations against reference ones.

    Args:
        answers: with keys; the images have official names.
        references: key -> texts; the same keys.
        settings: of the intervals, by group of source videos, and of the metrics that are optional.

    Returns:
        `metrics` (published, see `explanation_metrics`), `undefined` (metrics that were not computed, and why),
        `counts`, and `corrected` with the same scorers on lower-cased words without punctuation.

    Raises:
        ValueError: as for `score_texts`, or for an unofficial name.
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
    """Return the images that reference keys `<stem>_<n>` are about."""
    return sorted({Path(key.rsplit("_", 1)[0]).name for key in references})


def _source_groups(pictures: Sequence[Picture]) -> list[str]:
    """Return the group of every image; videos joined by any image belong together."""
    from deepfake_detectors.dataset_scripts._builder import components

    source = components(picture.videos for picture in pictures)
    return [source[picture.videos[0]] for picture in pictures]


def _published_judgement(truth: Sequence[str], verdicts: Sequence[str | None]) -> MetricSet:
    """Compute the four published numbers from the answers that the published parser can read."""
    result = MetricSet()
    names = {"accuracy": "accuracy", "f1": "f1_fake", "precision": "precision_fake", "recall": "recall_fake"}
    full = verdict_metrics(truth, verdicts, resamples=0) if truth else None
    for name, source in names.items():
        if full is None:
            result.add(name, None, "none of the answers contains a word that the published parser looks for")
        else:
            result.add(name, full.value(source), full.undefined.get(source))
    return result


def evaluate_answers(
    files: Sequence[Path],
    references: Path | None,
    protocol: Protocol,
    settings: Settings,
    expected: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score M2F2-Det's published answer files.

    Args:
        files: of judgements, of explanations, or both.
        references: reference explanations in their published form.
        protocol: the rules.
        settings: settings chosen by the user.
        expected: ids of the images that must have answers; not checked if `None`.

    Raises:
        FileNotFoundError, ValueError: for files that are missing, broken, or do not belong together.
    """
    kinds = kinds_of_files(files, protocol.official_answers)
    texts = read_references(references) if references is not None else None
    parts: dict[str, dict[str, Any]] = {}
    defects: dict[str, str] = {}
    if "judgement" in kinds:
        answers = read_answers(kinds["judgement"])
        stems = [Path(name).stem for name in expected] if expected is not None else None
        if stems is None and texts is not None:
            stems = reference_stems(texts)
        if stems is not None:
            check_ids([answer.stem for answer in answers], stems)
        parts["judgement"] = score_judgements(answers, settings.resamples, settings.seed)
        defects |= JUDGEMENT_DEFECTS
    if "explanation" in kinds:
        if texts is None:
            raise ValueError(
                f"{kinds['explanation']} contains explanations: pass the reference texts as `references` "
                "(splits/test_explanation.jsonl of DD-VQA)."
            )
        parts["explanation"] = score_explanations(read_answers(kinds["explanation"]), texts, settings)
        defects |= EXPLANATION_DEFECTS
    if not protocol.defects:  # only the corrected numbers
        parts = {name: {**part["corrected"], "counts": part["counts"]} for name, part in parts.items()}
        defects = {}
    union = {
        key: {name: value for part in parts.values() for name, value in part[key].items()}
        for key in ("metrics", "undefined")
    }
    return {**union, **parts, "defects": defects}


def score_m2f2_det_videos(rows: Sequence[Prediction], settings: Settings) -> dict[str, Any]:
    """Compute the published AUC and oracle accuracy over videos.

    Raises:
        ValueError: for a dataset without videos with several frames.
    """
    labels, scores = labels_of(rows), scores_of(rows)
    found = official_video_metrics([row.video_id for row in rows], 1 - labels, 1.0 - scores)
    return {"level": "video", "frames": len(rows), **found.to_dict(), "corrected": score_corrected(rows, settings)}


M2F2_DET = Protocol(
    name="paper:m2f2_det",
    summary="DD-VQA judgements and explanations from answer files, or AUC over videos from frame scores.",
    source="Guo et al., Rethinking Vision-Language Model in Face Forensics (CVPR 2025), published scripts",
    positive_class="fake (judgement), real (videos)",
    needs="score",
    metrics=higher(
        *("accuracy", "f1", "precision", "recall", "Bleu", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4"),
        *("ROUGE_L", "CIDEr", *OPTIONAL_TEXT_METRICS, "auc", "best_threshold_accuracy"),
    ),
    score=score_m2f2_det_videos,
    defects={**JUDGEMENT_DEFECTS, **EXPLANATION_DEFECTS, **VIDEO_DEFECTS},
    defects_of_rows=VIDEO_DEFECTS,
    official_answers=True,
)
