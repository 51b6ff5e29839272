"""From predictions to a folder with `results.json`, `report.md` and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepfake_detectors.evaluation.answer_files import read_answers, read_json_lines, read_references
from deepfake_detectors.evaluation.explanation_scoring import rouge_l_f, score_texts
from deepfake_detectors.evaluation.plots import plot_bars, plot_scores
from deepfake_detectors.evaluation.predictions import (
    Prediction,
    bootstrap_groups,
    check_ids,
    read_frame_scores,
    read_predictions,
)
from deepfake_detectors.evaluation.protocols.m2f2_det_ddvqa import (
    EXPLANATION_DEFECTS,
    JUDGEMENT_DEFECTS,
    reference_stems,
    score_explanations,
    score_judgements,
)
from deepfake_detectors.evaluation.protocols.registry import Protocol
from deepfake_detectors.evaluation.report import render_report
from deepfake_detectors.evaluation.settings import Settings
from deepfake_detectors.evaluation.video_metrics import VIDEO_DEFECTS

__all__ = ["evaluate_answers", "evaluate_rows", "explanation_results", "read_rows", "write_evaluation"]

LIBRARIES = ("deepfake-detectors", "numpy", "scikit-learn")
KNOWN_OF_PICTURES = ("manipulation", "category", "video_id", "group_id", "set")
PLOTS = {  # table -> what its rows are, file
    "per_manipulation": ("manipulation", "manipulations.png"),
    "per_category": ("category", "categories.png"),
    "per_set": ("set", "sets.png"),
}


def evaluate_rows(rows: Sequence[Prediction], protocol: Protocol, settings: Settings) -> dict[str, Any]:
    """Score predictions of pictures.

    Raises:
        ValueError: where there are none, or where they lack what the protocol needs.
    """
    if not rows:
        raise ValueError("There is nothing to evaluate: no prediction.")
    for name in ("score", "text"):
        if protocol.needs == name:
            without = [row.id for row in rows if getattr(row, name) is None]
            if without:
                raise ValueError(
                    f"The protocol {protocol.name} needs a {name} for every picture, but {len(without)} of "
                    f"{len(rows)} predictions have none, the first being {without[0]}. "
                    "Add it, or choose another protocol."
                )
    results = protocol.score(rows, settings)
    defects = VIDEO_DEFECTS if protocol.official_answers else protocol.defects
    return {**results, "defects": dict(defects) if protocol.defects else {}}


def explanation_results(
    rows: Sequence[Prediction], references: Mapping[str, Sequence[str]], protocol: Protocol, settings: Settings
) -> dict[str, Any]:
    """Explanations of pictures against reference ones, as lower-cased words without punctuation.

    `paper:fakevlm` adds `rouge_l_f`, as its ROUGE-L is commonly computed; the paper does not say how it was.

    Raises:
        ValueError: for a picture without a text or without a reference, and as `score_texts`.
    """
    without = [row.id for row in rows if row.text is None]
    if without:
        raise ValueError(
            f"{len(without)} of {len(rows)} predictions have no text to compare with the references, the first being "
            f"{without[0]}. Write them with --explain."
        )
    by, groups = bootstrap_groups(rows)
    texts = {row.id: str(row.text) for row in rows}
    _, found = score_texts(texts, references, groups, settings)
    if protocol.name == "paper:fakevlm":
        found.metrics |= rouge_l_f(texts, references, groups, settings).metrics
    return {
        "counts": {"explanations": len(texts), "empty": sum(not text.strip() for text in texts.values())},
        "tokens": "lower-cased words without punctuation",
        **({"bootstrap": {"level": 0.95, "resamples": settings.resamples, "by": by}} if settings.resamples else {}),
        **found.to_dict(),
    }


def read_rows(
    files: Sequence[Path], protocol: Protocol, expected: Sequence[Prediction] | None = None
) -> list[Prediction] | None:
    """Predictions of pictures from a cached file; `None` where the files are M2F2-Det's published answers.

    Args:
        files: one of `Prediction` lines, or a table of frame scores; or answers of judgements, of explanations, or
            both.
        protocol: says what the numbers of labels mean.
        expected: what is known of the pictures that must have been judged; fills what the file leaves out. Not
            checked if `None`.

    Raises:
        FileNotFoundError, ValueError: for files that are missing, broken, or do not belong together, and for a label
            that the set contradicts.
    """
    kinds = _kinds(files, protocol)
    if not set(kinds) & {"rows", "frames"}:
        return None
    if len(kinds) > 1:
        raise ValueError("Predictions of pictures stand alone: give a single file.")
    ((kind, file),) = kinds.items()
    rows = read_frame_scores(file) if kind == "frames" else read_predictions(file, protocol.integer_labels)
    if expected is None:
        return rows
    check_ids([row.id for row in rows], [row.id for row in expected])
    known = {row.id: row for row in expected}
    return [_completed(row, known[row.id], file) for row in rows]


def _completed(row: Prediction, known: Prediction, file: Path) -> Prediction:
    """The prediction with what the set knows of its picture and the file does not say."""
    if row.label != known.label:
        raise ValueError(
            f"{file}: the label of {row.id} is {row.label!r}, but in the set it is {known.label!r}. Take the labels "
            "from the set, or leave the set out to score what the file says."
        )
    absent = (name for name in KNOWN_OF_PICTURES if getattr(row, name) is None)
    return replace(row, **{name: getattr(known, name) for name in absent})


def _kinds(files: Sequence[Path], protocol: Protocol) -> dict[str, Path]:
    kinds = {_kind(file, protocol): file for file in files}
    if len(kinds) < len(files):
        raise ValueError(
            "Two --predictions files are of the same kind; give one of judgements and one of explanations."
        )
    return kinds


def _kind(file: Path, protocol: Protocol) -> str:
    """`frames`, `rows`, `judgement` or `explanation`."""
    if file.suffix.lower() == ".csv":
        return "frames"
    place, first = next(read_json_lines(file, "predictions"))
    if not protocol.official_answers or "label" in first:
        return "rows"
    if "text" not in first:
        raise ValueError(
            f"{place}: neither a prediction of this package (id, label, score or text) nor an answer of M2F2-Det "
            f"(image, text); the fields are {', '.join(first)}."
        )
    return "explanation" if "key" in first else "judgement"


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
        settings: what a user may choose.
        expected: ids of the pictures that must have been judged; not checked if `None`.

    Raises:
        FileNotFoundError, ValueError: for files that are missing, broken, or do not belong together.
    """
    kinds = _kinds(files, protocol)
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
                f"{kinds['explanation']} holds explanations: give the reference texts with --references "
                "(splits/test_explanation.jsonl of DD-VQA)."
            )
        parts["explanation"] = score_explanations(read_answers(kinds["explanation"]), texts, settings)
        defects |= EXPLANATION_DEFECTS
    if not protocol.defects:  # the corrected numbers alone
        parts = {name: {**part["corrected"], "counts": part["counts"]} for name, part in parts.items()}
        defects = {}
    union = {
        key: {name: value for part in parts.values() for name, value in part[key].items()}
        for key in ("metrics", "undefined")
    }
    return {**union, **parts, "defects": defects}


def write_evaluation(
    results: dict[str, Any],
    rows: Sequence[Prediction],
    protocol: Protocol,
    settings: Settings,
    inputs: dict[str, Any],
    output: Path,
) -> list[Path]:
    """Write `results.json`, `report.md` and the plots; returns the files. The same results give the same bytes."""
    output.mkdir(parents=True, exist_ok=True)
    libraries = (*LIBRARIES, "pycocoevalcap") if "explanation" in results else LIBRARIES
    content = {
        "protocol": protocol.describe(),
        "inputs": inputs,
        **results,
        "versions": {name: version(name) for name in libraries},
    }
    plots = []
    if rows and all(row.score is not None for row in rows):
        plots += plot_scores(rows, settings.threshold, output)
    part = results.get("judgement", results)
    sides = {"as published": part, "corrected": part["corrected"]} if "corrected" in part else {protocol.name: part}
    for name, (kind, file) in PLOTS.items():
        tables = {legend: source[name] for legend, source in sides.items() if name in source}
        if tables:
            plots.append(plot_bars(tables, output / file, kind))
    report, numbers = output / "report.md", output / "results.json"
    report.write_text(render_report(content, [path.name for path in plots]), encoding="utf-8")
    # Last and in one piece: where it lies, the evaluation is complete.
    partial = output / "results.json.part"
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(numbers)
    return [numbers, report, *plots]
