"""What the embedded default writes about DD-VQA's test pictures, scored as published, and beside what it is worth.

Three columns: the model, the official system's published answers, and a control that never looks at a picture: the
most frequent training answer to the same question.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModel, AutoProcessor

from deepfake_detectors import __version__
from deepfake_detectors.data.registry import data_folder, load_split
from deepfake_detectors.evaluation.predictions import Answer, read_answers, read_references
from deepfake_detectors.evaluation.protocols.m2f2_det import score_explanations, score_judgements
from deepfake_detectors.evaluation.protocols.m2f2_det_answers import AnswerArguments, write_answers

__all__ = ["control_answers", "score_default_explanations"]

TASKS = ("judgement", "explanation")
# In the data set's folder: the official system's answers, and the references of both.
PUBLISHED = {"judgement": "predictions/DDVQA_det_c40.jsonl", "explanation": "predictions/DDVQA_exp_c40.jsonl"}
REFERENCES = "splits/test_explanation.jsonl"
EXAMPLES = 4


def score_default_explanations(model: str | Path, output: Path, data_dir: str | None = None) -> dict[str, Any]:
    """Ask, score and compare.

    Args:
        model: folder of an M2F2-Det with language model.
        output: folder for the answers, `<task>.jsonl`; files that are there are scored as they are.
        data_dir: raw DD-VQA; if `None`, its folder in `$DEEPFAKE_DATA`.

    Returns:
        `judgement` and `explanation`, each with the published scores per column (`model`, `official`, and for the
        explanations `control`), `examples` (question, answer and reference of the first rows), the `parameters` of the
        whole model, the `prompt_style` it was asked in, and `versions`.
    """
    root = data_folder("ddvqa", data_dir)
    answers: dict[str, dict[str, list[Answer]]] = {}
    for task in TASKS:
        path = output / f"{task}.jsonl"
        if not path.is_file():
            write_answers(AnswerArguments(model=str(model), output=str(path), task=task, data_dir=data_dir))
        answers[task] = {"model": read_answers(path), "official": read_answers(root / PUBLISHED[task])}
    questions = _test_questions(data_dir)
    answers["explanation"]["control"] = control_answers(answers["explanation"]["model"], questions, data_dir)
    references = read_references(root / REFERENCES)
    explanation = {name: score_explanations(found, references) for name, found in answers["explanation"].items()}
    loaded = AutoModel.from_pretrained(model)
    return {
        "judgement": {name: score_judgements(found) for name, found in answers["judgement"].items()},
        "explanation": explanation,
        "examples": _examples(answers["explanation"]["model"], questions, references),
        "parameters": loaded.num_parameters(),
        "prompt_style": AutoProcessor.from_pretrained(model).prompt_style,
        "versions": {
            "deepfake_detectors": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def control_answers(asked: list[Answer], questions: dict[str, str], data_dir: str | None = None) -> list[Answer]:
    """For each question the most frequent answer to it in the training split, whatever the picture shows.

    Args:
        asked: answers whose pictures and keys are kept, and whose texts are replaced.
        questions: key -> question of the test split.
        data_dir: raw DD-VQA; if `None`, its folder in `$DEEPFAKE_DATA`.
    """
    rows = load_split("ddvqa", "train", data_dir, "c40_explain", {"questions": "stated"})
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question, found in zip(rows["question"], rows["answers"], strict=True):
        counts[_kind(question)].update(found)
    # The first in the alphabet of several equally frequent ones.
    common = {kind: min(found, key=lambda text: (-found[text], text)) for kind, found in counts.items()}
    return [replace(answer, text=common[_kind(questions[str(answer.key)])]) for answer in asked]


def _kind(question: str) -> str:
    """The question without the list of parts that the general ones end with."""
    return question.split(" based on ")[0]


def _test_questions(data_dir: str | None) -> dict[str, str]:
    rows = load_split("ddvqa", "test", data_dir, "c40_explain")
    keys = [f"{name.split('/')[3]}_{name.rsplit('/', 1)[1]}" for name in rows["id"]]
    return dict(zip(keys, rows["question"], strict=True))


def _examples(
    answers: list[Answer], questions: dict[str, str], references: dict[str, list[str]]
) -> list[dict[str, str]]:
    """The first answers of as many different kinds of question, in the order of the test file."""
    found: dict[str, dict[str, str]] = {}
    for answer in answers:
        key = str(answer.key)
        found.setdefault(
            _kind(questions[key]),
            {
                "key": key,
                "question": questions[key],
                "answer": answer.clean_text,
                "reference": " / ".join(references[key]),
            },
        )
    return list(found.values())[:EXAMPLES]
