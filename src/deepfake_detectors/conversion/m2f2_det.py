"""Official M2F2-Det files to a folder that `from_pretrained` loads.

Files (see the official repository's release): `current_model_180.pth` (stage-1 detector, the `bridge` variant),
`M2F2_Det_densenet121.pth` (detector of the language model, the `cosine` variant), `vision_tower.pth` (the CLIP
image tower that the latter needs), and the folder `llava-v1.5-7b-M2F2-Det` (the language model with everything in it).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from deepfake_detectors.conversion.checkpoint_files import read_tensors
from deepfake_detectors.conversion.key_table import KeyTable, check_complete, rename_keys
from deepfake_detectors.conversion.m2f2_det_llm import convert_language_model
from deepfake_detectors.conversion.m2f2_det_tables import (
    BRIDGE_BLOCK_TABLE,
    STAGE_1_CLASSES,
    STATE_DICT_KEYS,
    TOWER_TABLE,
    official_key_table,
)
from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_bridge import M2F2DetBridgeBlock

__all__ = ["convert_m2f2_det"]

logger = logging.getLogger(__name__)


def convert_m2f2_det(
    sources: Sequence[Path], output: Path, *, config: dict[str, Any] | None = None, variant: str | None = None
) -> None:
    """Write a complete folder with its processor: a verdict class from files, the language model from its folder.

    Args:
        sources: the language model's folder (or weight files and a tokenizer folder); or official files in any order:
            one detector file; for the cosine detector also `vision_tower.pth`,
            unless the detector file holds a tower; optionally the bridge blocks (`bridge_adapter.*`).
        output: empty or new folder.
        config: `M2F2DetConfig` fields where they differ from the released sizes.
        variant: `"bridge"` or `"cosine"`, to insist on it; found from the keys otherwise.

    Raises:
        ValueError: if a file cannot be read, is of an unknown kind or the wrong variant, or if any key is missing,
            unexpected or of another shape.
    """
    if any(path.is_dir() for path in sources):
        if variant == "bridge":
            raise ValueError("A bridge detector was asked for, but a folder holds the language model (cosine).")
        convert_language_model(list(sources), output, config=config)
        return
    parts = _sort_sources(sources)
    detector = parts["detector"]
    found = "bridge" if any(key.startswith("bridge_adapter_proj.") for key in detector) else "cosine"
    if variant not in (None, found):
        raise ValueError(
            f"A {variant} detector was asked for, but the file holds the {found} one "
            f"({'current_model_180.pth' if found == 'bridge' else 'M2F2_Det_densenet121.pth'} in the release). "
            "Their weights are not interchangeable; drop --variant or give the other file."
        )
    settings = M2F2DetConfig(**{**(config or {}), "variant": found})

    tensors = _renamed(detector, official_key_table(found, detector), "The detector file")
    if parts["tower"]:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("vision_tower.")}
        tensors |= _renamed(parts["tower"], TOWER_TABLE, "The vision tower file")
    elif not any(name.startswith("vision_tower.") for name in tensors):
        raise ValueError("The detector file holds no CLIP image tower: add --source vision_tower.pth.")
    if found == "bridge":
        tensors |= _bridge_blocks(parts["blocks"], settings)

    with torch.device("meta"):
        model = M2F2DetForDeepfakeDetection(settings)
    check_complete(tensors, model.state_dict(), f"The {found} checkpoint")
    model.load_state_dict(tensors, strict=True, assign=True)
    model.save_pretrained(output)
    size = settings.vision_config.image_size
    image_processor = M2F2DetImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    VerdictProcessor(image_processor).save_pretrained(output)


def _renamed(tensors: dict[str, torch.Tensor], table: KeyTable, what: str) -> dict[str, torch.Tensor]:
    names = rename_keys(tensors, table, what)
    return {new: tensors[old].contiguous() for old, new in names.items()}


def _sort_sources(sources: Sequence[Path]) -> dict[str, dict[str, torch.Tensor]]:
    parts: dict[str, dict[str, torch.Tensor]] = {"detector": {}, "tower": {}, "blocks": {}}
    for path in sources:
        tensors = read_tensors(path, allow=STAGE_1_CLASSES, inside=STATE_DICT_KEYS)
        tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
        if any(key.startswith("deepfake_encoder.") for key in tensors):
            kind = "detector"
        elif all(key.startswith("bridge_adapter.") for key in tensors):
            kind = "blocks"
        elif all(key.replace("vision_tower.", "").startswith("vision_model.") for key in tensors):
            # The release may hold the prefix once, twice or not at all; the official loader strips every one.
            kind = "tower"
            tensors = {f"clip_vision_encoder.model.{k.replace('vision_tower.', '')}": v for k, v in tensors.items()}
        else:
            raise ValueError(
                f"{path} is no M2F2-Det file: its first keys are {', '.join(list(tensors)[:3])}. Expected a detector "
                "(deepfake_encoder.*), a CLIP tower (vision_model.*) or bridge blocks (bridge_adapter.*)."
            )
        if parts[kind]:
            raise ValueError(f"{path} is a second {kind} file; give one.")
        parts[kind] = tensors
    if not parts["detector"]:
        raise ValueError(f"No detector file among {', '.join(str(path) for path in sources) or 'the sources'}.")
    return parts


def _bridge_blocks(blocks: dict[str, torch.Tensor], config: M2F2DetConfig) -> dict[str, torch.Tensor]:
    if blocks:
        return _renamed(blocks, BRIDGE_BLOCK_TABLE, "The bridge block file")
    logger.warning(
        "The official file does not hold the three bridge blocks; they get their start values. With "
        "bridge_norm='official' they have no effect on any result."
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = [M2F2DetBridgeBlock(config).state_dict() for _ in config.bridge_vision_layers]
    return {
        f"detector.bridge.blocks.{i}.{name}": tensor for i, block in enumerate(fresh) for name, tensor in block.items()
    }
