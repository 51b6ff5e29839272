"""Turn a trained probe into the one that ships with the package: copy it, score its face head, render its card.

python -m deepfake_detectors.train.embed_probe --checkpoint outputs/clip_probe_mini
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.hub.model_cards import write_model_card
from deepfake_detectors.modeling.modeling_clip_probe_storage import ENCODER_FILE, HEADS_FILE
from deepfake_detectors.module_command import run_command

__all__ = ["CHECKPOINT_FILES", "MAX_BYTES", "EmbedProbeArguments", "embed_probe"]

logger = logging.getLogger("deepfake_detectors.train")

CHECKPOINT_FILES = (
    "config.json",
    ENCODER_FILE,
    HEADS_FILE,
    "model.safetensors.index.json",
    "processor_config.json",
    "validation.json",
)
RESAMPLES = 2000  # for the intervals on the card
MAX_BYTES = 64_000_000  # part of every installation


@dataclass
class EmbedProbeArguments:
    """Options of the command."""

    checkpoint: str = field(metadata={"help": "Output folder of train_probe."})
    target: str = field(
        default="src/deepfake_detectors/checkpoints/clip_probe_mini", metadata={"help": "Folder to fill."}
    )
    facts: str = field(default="hub_cards/facts/clip_probe_mini.yaml", metadata={"help": "Facts for the card."})
    data_dir: str | None = field(default=None, metadata={"help": "Raw DD-VQA; default: $DEEPFAKE_DATA/ddvqa."})


def embed_probe(arguments: EmbedProbeArguments) -> Path:
    """Fill the target folder and return it. Identical files are not written again.

    Raises:
        FileNotFoundError: if the checkpoint lacks a file, or the target its LICENSE.
        ValueError: if it is too large to ship.
    """
    source, target = Path(arguments.checkpoint), Path(arguments.target)
    missing = [name for name in CHECKPOINT_FILES if not (source / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{source} lacks {', '.join(missing)}; pass a folder written by train_probe.")
    if not (target / "LICENSE").is_file():
        raise FileNotFoundError(f"{target} has no LICENSE; the terms of the heads must ship with them.")
    size = sum((source / name).stat().st_size for name in CHECKPOINT_FILES)
    if size > MAX_BYTES:
        raise ValueError(f"{source} has {size} bytes, but at most {MAX_BYTES} can ship with the package.")
    for name in CHECKPOINT_FILES:
        if not (target / name).is_file() or (target / name).read_bytes() != (source / name).read_bytes():
            shutil.copyfile(source / name, target / name)
    results = evaluate(
        target, dataset="ddvqa", dataset_config="c40", data_dir=arguments.data_dir, head="face", resamples=RESAMPLES
    )
    text = json.dumps(results.content, indent=2, ensure_ascii=False, allow_nan=False)
    (target / "results.json").write_text(text + "\n", encoding="utf-8")
    card = write_model_card(target, Path(arguments.facts))
    logger.info("wrote the new default to %s and its card to %s", target, card)
    return target


if __name__ == "__main__":
    run_command(embed_probe, EmbedProbeArguments)
