"""Make a trained checkpoint the one that ships with the package: copy it, score it on the test split, render its card.

python -m deepfake_detectors.train.embed_default --checkpoint outputs/m2f2_det_default
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from deepfake_detectors.cards import write_model_card
from deepfake_detectors.default_checkpoint import LICENSE_NOTICE
from deepfake_detectors.evaluation.evaluate_classifier import EvaluationArguments, evaluate_classifier
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.module_command import run_command
from deepfake_detectors.train.calibrated_head import fold_calibration

__all__ = ["CHECKPOINT_FILES", "EmbedArguments", "embed_default"]

logger = logging.getLogger("deepfake_detectors.train")

CHECKPOINT_FILES = ("config.json", "model.safetensors", "processor_config.json", "validation.json")
MAX_BYTES = 12_000_000  # every installation carries it


@dataclass
class EmbedArguments:
    """What to embed, and where."""

    checkpoint: str = field(metadata={"help": "Output folder of the training."})
    target: str = field(default="src/deepfake_detectors/default_checkpoint", metadata={"help": "Folder to fill."})
    facts: str = field(default="hub_cards/facts/m2f2_det_default.yaml", metadata={"help": "Facts of the card."})
    data_dir: str | None = field(default=None, metadata={"help": "Raw DD-VQA; if unset, $DEEPFAKE_DATA/ddvqa."})


def embed_default(arguments: EmbedArguments) -> Path:
    """Fill the target folder and return it.

    Raises:
        FileNotFoundError: if the checkpoint lacks a file.
        ValueError: if it is too large to ship.
    """
    source, target = Path(arguments.checkpoint), Path(arguments.target)
    missing = [name for name in CHECKPOINT_FILES if not (source / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{source} lacks {', '.join(missing)}; give the output folder of a finished training.")
    size = sum((source / name).stat().st_size for name in CHECKPOINT_FILES)
    if size > MAX_BYTES:
        raise ValueError(f"{source} holds {size} bytes, but at most {MAX_BYTES} may ship with the package.")
    target.mkdir(parents=True, exist_ok=True)
    for name in CHECKPOINT_FILES:
        shutil.copyfile(source / name, target / name)
    _fold_calibration(target)
    _carry_terms(target / "config.json")
    evaluate_classifier(
        EvaluationArguments(
            model=str(target), dataset_config="c40", data_dir=arguments.data_dir, output=str(target / "results.json")
        )
    )
    card = write_model_card(target, Path(arguments.facts))
    logger.info("%s holds the new default, %s its card", target, card)
    return target


def _fold_calibration(folder: Path) -> None:
    model = M2F2DetForDeepfakeDetection.from_pretrained(folder)
    fold_calibration(model)
    model.save_pretrained(folder)


def _carry_terms(config: Path) -> None:
    """The pipeline shows `license_notice` once, also to whoever reaches the folder by transformers' own call."""
    fields = {**json.loads(config.read_text(encoding="utf-8")), "license_notice": LICENSE_NOTICE}
    config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(embed_default, EmbedArguments)
