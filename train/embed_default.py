"""Ship a trained checkpoint with the package: copy it, score it on the test split, render its card.

    python -m deepfake_detectors.train.embed_default --checkpoint outputs/m2f2_det_default_llm \
        --detector outputs/m2f2_det_default --language outputs/m2f2_det_default_language \
        --stage2 outputs/m2f2_det_default_stage2 --stage3 outputs/m2f2_det_default_stage3
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModel, AutoProcessor

from deepfake_detectors import __version__
from deepfake_detectors.data.loading import load_split
from deepfake_detectors.data.registry import data_folder
from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.evaluation.predictions import Answer, read_answers, read_references
from deepfake_detectors.evaluation.protocols.m2f2_det import score_explanations, score_judgements
from deepfake_detectors.evaluation.protocols.m2f2_det_answers import AnswerArguments, write_answers
from deepfake_detectors.hub.model_cards import write_model_card
from deepfake_detectors.modeling.configuration_detection import identity_calibration
from deepfake_detectors.module_command import run_command

__all__ = [
    "CHECKPOINT_FILES",
    "EmbedArguments",
    "MAX_BYTES",
    "STAGES",
    "control_answers",
    "embed_default",
    "score_default_explanations",
]

logger = logging.getLogger("deepfake_detectors.train")

CHECKPOINT_FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
STAGES = ("language", "stage2", "stage3")
RESAMPLES = 2000  # for the intervals on the card
MAX_BYTES = 20_000_000  # part of every installation
LICENSE_NOTICE = (
    "The embedded default weights were trained on FaceForensics++ images and are for non-commercial research only "
    "(terms: see the LICENSE file next to them). They demonstrate the pipeline; do not rely on their verdicts."
)
TASKS = ("judgement", "explanation")
# In the dataset's folder: the official system's answers, and the references for both.
PUBLISHED = {"judgement": "predictions/DDVQA_det_c40.jsonl", "explanation": "predictions/DDVQA_exp_c40.jsonl"}
REFERENCES = "splits/test_explanation.jsonl"
EXAMPLES = 4


def score_default_explanations(model: str | Path, output: Path, data_dir: str | None = None) -> dict[str, Any]:
    """Generate answers, score them and compare them with the published ones.

    Args:
        model: folder of an M2F2-Det with a language model.
        output: folder for the answers, `<task>.jsonl`; existing files are scored without asking again.
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
    loaded = AutoModel.from_pretrained(model, trust_remote_code=False)
    return {
        "judgement": {name: score_judgements(found) for name, found in answers["judgement"].items()},
        "explanation": explanation,
        "examples": _examples(answers["explanation"]["model"], questions, references),
        "parameters": loaded.num_parameters(),
        "prompt_style": AutoProcessor.from_pretrained(model, trust_remote_code=False).prompt_style,
        "versions": {
            "deepfake_detectors": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def control_answers(asked: list[Answer], questions: dict[str, str], data_dir: str | None = None) -> list[Answer]:
    """Return for each question the most frequent answer in the training split, regardless of the image.

    Args:
        asked: answers whose texts are replaced; images and keys are kept.
        questions: key -> question of the test split.
        data_dir: raw DD-VQA; if `None`, its folder in `$DEEPFAKE_DATA`.
    """
    rows = load_split("ddvqa", "train", data_dir, "c40_explain", {"questions": "stated"})
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question, found in zip(rows["question"], rows["answers"], strict=True):
        counts[_kind(question)].update(found)
    # Ties are resolved alphabetically.
    common = {kind: min(found, key=lambda text: (-found[text], text)) for kind, found in counts.items()}
    return [replace(answer, text=common[_kind(questions[str(answer.key)])]) for answer in asked]


def _kind(question: str) -> str:
    """Return the question without the list of parts at the end of general questions."""
    return question.split(" based on ")[0]


def _test_questions(data_dir: str | None) -> dict[str, str]:
    rows = load_split("ddvqa", "test", data_dir, "c40_explain")
    keys = [f"{name.split('/')[3]}_{name.rsplit('/', 1)[1]}" for name in rows["id"]]
    return dict(zip(keys, rows["question"], strict=True))


def _examples(
    answers: list[Answer], questions: dict[str, str], references: dict[str, list[str]]
) -> list[dict[str, str]]:
    """Return the first answer to each of this many kinds of question, in the order of the test file."""
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


@dataclass
class EmbedArguments:
    """Options of the command."""

    checkpoint: str = field(metadata={"help": "Folder of the whole model: stage 3 merged into stage 2."})
    detector: str = field(metadata={"help": "Output folder of the detector's training."})
    language: str = field(metadata={"help": "Output folder of the language model's training."})
    stage2: str = field(metadata={"help": "Output folder of stage 2."})
    stage3: str = field(metadata={"help": "Output folder of stage 3."})
    answers: str = field(
        default="outputs/m2f2_det_default_answers",
        metadata={"help": "Folder for the answers to the test questions; those that are there are not asked again."},
    )
    target: str = field(
        default="src/deepfake_detectors/checkpoints/m2f2_det_mini", metadata={"help": "Folder to fill."}
    )
    facts: str = field(default="hub_cards/facts/m2f2_det_default.yaml", metadata={"help": "Facts of the card."})
    data_dir: str | None = field(default=None, metadata={"help": "Raw DD-VQA; if unset, $DEEPFAKE_DATA/ddvqa."})


def embed_default(arguments: EmbedArguments) -> Path:
    """Fill the target folder and return it.

    Raises:
        FileNotFoundError: if the checkpoint or a stage lacks a file.
        ValueError: if it is too large to ship, or if its detector is not calibrated.
    """
    source, target = Path(arguments.checkpoint), Path(arguments.target)
    missing = [name for name in CHECKPOINT_FILES if not (source / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{source} lacks {', '.join(missing)}; pass the folder written by `merge`.")
    validation = _validation(arguments)
    _require_calibrated(source)
    size = sum((source / name).stat().st_size for name in CHECKPOINT_FILES)
    if size > MAX_BYTES:
        raise ValueError(f"{source} has {size} bytes, but at most {MAX_BYTES} can ship with the package.")
    target.mkdir(parents=True, exist_ok=True)
    for name in CHECKPOINT_FILES:
        shutil.copyfile(source / name, target / name)
    _write(target / "validation.json", validation)
    _carry_terms(target / "config.json")
    results = evaluate(target, dataset="ddvqa", dataset_config="c40", data_dir=arguments.data_dir, resamples=RESAMPLES)
    _write(target / "results.json", results.content)
    explanations = score_default_explanations(target, Path(arguments.answers), arguments.data_dir)
    _write(target / "explanations.json", explanations)
    card = write_model_card(target, Path(arguments.facts))
    logger.info("wrote the new default to %s and its card to %s", target, card)
    return target


def _validation(arguments: EmbedArguments) -> dict[str, Any]:
    """Return the validation results of each training stage: those of the detector, with the others below."""
    found = {}
    for name in ("detector", *STAGES):
        path = Path(getattr(arguments, name)) / "validation.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; {name} must be the output folder of a finished training run.")
        found[name] = json.loads(path.read_text(encoding="utf-8"))
    return {**_lasting(found.pop("detector")), "stages": {name: _lasting(stage) for name, stage in found.items()}}


def _lasting(stage: dict[str, Any]) -> dict[str, Any]:
    """Remove paths and speeds of this run, which do not describe the model."""
    metrics = {
        name: value
        for name, value in stage["metrics"].items()
        if not name.endswith(("_runtime", "_per_second")) and name != "epoch"
    }
    of_this_run = ("command", "model_name_or_path")
    return {**{name: value for name, value in stage.items() if name not in of_this_run}, "metrics": metrics}


def _require_calibrated(source: Path) -> None:
    calibration = json.loads((source / "config.json").read_text(encoding="utf-8"))["calibration"]
    if calibration != identity_calibration():
        raise ValueError(
            f"{source} has the calibration {calibration} in its config, where stock pipelines ignore it; build its "
            "base with mini_base and its `detector`, which merges the calibration into the weights."
        )


def _carry_terms(config: Path) -> None:
    """Set `license_notice`, which the pipeline shows once."""
    _write(config, {**json.loads(config.read_text(encoding="utf-8")), "license_notice": LICENSE_NOTICE}, sort=True)


def _write(path: Path, content: dict[str, Any], sort: bool = False) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=sort, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(embed_default, EmbedArguments)
