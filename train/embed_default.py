"""Make a trained checkpoint the one that ships with the package: copy it, score it on the test split, render its card.

    python -m deepfake_detectors.train.embed_default --checkpoint outputs/m2f2_det_default_llm \
        --detector outputs/m2f2_det_default --language outputs/m2f2_det_default_language \
        --stage2 outputs/m2f2_det_default_stage2 --stage3 outputs/m2f2_det_default_stage3
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.hub.cards import write_model_card
from deepfake_detectors.modeling.configuration_detection import identity_calibration
from deepfake_detectors.module_command import run_command
from deepfake_detectors.train.default_explanations import score_default_explanations

__all__ = ["CHECKPOINT_FILES", "MAX_BYTES", "STAGES", "EmbedArguments", "embed_default"]

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
MAX_BYTES = 20_000_000  # every installation carries it
RESAMPLES = 2000  # of the intervals on the card
LICENSE_NOTICE = (
    "The embedded default weights were trained on FaceForensics++ pictures and are for non-commercial research only "
    "(terms: LICENSE beside them). They demonstrate the pipeline; do not rely on their verdicts."
)


@dataclass
class EmbedArguments:
    """What to embed, and where."""

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
        raise FileNotFoundError(f"{source} lacks {', '.join(missing)}; give the folder that `merge` wrote.")
    validation = _validation(arguments)
    _require_calibrated(source)
    size = sum((source / name).stat().st_size for name in CHECKPOINT_FILES)
    if size > MAX_BYTES:
        raise ValueError(f"{source} holds {size} bytes, but at most {MAX_BYTES} may ship with the package.")
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
    logger.info("%s holds the new default, %s its card", target, card)
    return target


def _validation(arguments: EmbedArguments) -> dict[str, Any]:
    """What each training measured on its validation videos: the detector's, and below it the others'."""
    found = {}
    for name in ("detector", *STAGES):
        path = Path(getattr(arguments, name)) / "validation.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; --{name} must be the output folder of a finished training.")
        found[name] = json.loads(path.read_text(encoding="utf-8"))
    return {**_lasting(found.pop("detector")), "stages": {name: _lasting(stage) for name, stage in found.items()}}


def _lasting(stage: dict[str, Any]) -> dict[str, Any]:
    """Without the paths and the speeds of this run, which say nothing about the model."""
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
            f"{source} has the calibration {calibration} behind its detector, where stock pipelines do not see it; "
            "build its base with mini_base --detector, which puts it into the weights."
        )


def _carry_terms(config: Path) -> None:
    """The pipeline shows `license_notice` once, also to whoever reaches the folder by transformers' own call."""
    _write(config, {**json.loads(config.read_text(encoding="utf-8")), "license_notice": LICENSE_NOTICE}, sort=True)


def _write(path: Path, content: dict[str, Any], sort: bool = False) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=sort, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(embed_default, EmbedArguments)
