"""Convert official files of M2F2-Det's detectors to an `M2F2DetForDeepfakeDetection` folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from deepfake_detectors.conversion.checkpoint_files import IgnoredObject, ignored_dict, read_tensors
from deepfake_detectors.conversion.key_table import KeyTable, check_complete, rename_keys
from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_bridge import M2F2DetBridgeBlock

__all__ = [
    "STAGE_1_CLASSES",
    "STATE_DICT_KEYS",
    "TOWER_TABLE",
    "bridge_blocks",
    "convert_detector",
    "official_key_table",
]

logger = logging.getLogger(__name__)

# The stage-1 pickle also contains its scheduler with its optimizer. Neither is needed, so stand-ins replace them and
# their code does not run.
STAGE_1_CLASSES = (
    (IgnoredObject, "torch.optim.lr_scheduler.ReduceLROnPlateau"),
    (IgnoredObject, "torch.optim.adam.Adam"),
    (ignored_dict, "collections.defaultdict"),
    (dict, "builtins.dict"),
)
STATE_DICT_KEYS = ("model_state_dict",)

PROMPT_TABLE: KeyTable = [
    (r"clip_text_encoder\.prompt_tokens", "detector.prompt_encoder.prompt_tokens"),
    (r"clip_text_encoder\.model\.text_model\.embeddings\.position_ids", None),
    (r"clip_text_encoder\.model\.text_model\.(.+)", r"detector.prompt_encoder.text_tower.\1"),
    (r"text_proj\.(.+)", r"detector.prompt_encoder.proj.\1"),
]
HEAD_TABLE: KeyTable = [
    (r"deepfake_proj\.(.+)", r"detector.encoder_proj.\1"),
    (r"vision_proj\.(.+)", r"detector.vision_proj.\1"),
    (r"output\.(.+)", r"detector.classifier.\1"),
    (r"clip_(vision|text)_alpha", r"detector.\1_alpha"),
]
TOWER_TABLE: KeyTable = [
    (r"clip_vision_encoder\.model\.vision_model\.embeddings\.position_ids", None),
    (r"clip_vision_encoder\.model\.vision_model\.(.+)", r"vision_tower.\1"),
]
DENSENET_TABLE: KeyTable = [(r"deepfake_encoder\.(.+)", r"detector.encoder.network.features.\1")]
BRIDGE_TABLE: KeyTable = [
    (r"linear_(\d+)\.(.+)", lambda m: f"detector.bridge.encoder_projs.{int(m[1]) - 1}.{m[2]}"),
    (r"clip_reduction\.(.+)", r"detector.bridge.vision_proj.\1"),
    (r"bridge_adapter_proj\.bridge_adapter_proj\.1\.(.+)", r"detector.bridge.score.\1"),
    (r"bridge_adapter_proj\.bridge_adapter_proj\.2\.(.+)", r"detector.bridge.score_norm.\1"),
    (r"bridge_adapter_proj\.bridge_adapter_reduction\.0\.(.+)", r"detector.bridge.reduction.\1"),
    (r"bridge_adapter_proj\.bridge_adapter_reduction\.1\.(.+)", r"detector.bridge.reduction_norm.\1"),
]
# The official code keeps these in a plain Python list, so its files do not contain them; there may be a separate file.
BRIDGE_BLOCK_TABLE: KeyTable = [
    (r"bridge_adapter\.(\d+)\.attn\.Wqkv\.(.+)", r"detector.bridge.blocks.\1.qkv_proj.\2"),
    (r"bridge_adapter\.(\d+)\.attn\.out_proj\.(.+)", r"detector.bridge.blocks.\1.out_proj.\2"),
    (r"bridge_adapter\.(\d+)\.(norm[12])\.(.+)", r"detector.bridge.blocks.\1.\2.\3"),
    (r"bridge_adapter\.(\d+)\.ffn\.0\.(.+)", r"detector.bridge.blocks.\1.fc1.\2"),
    (r"bridge_adapter\.(\d+)\.ffn\.3\.(.+)", r"detector.bridge.blocks.\1.fc2.\2"),
]


def convert_detector(
    sources: Sequence[Path], output: Path, *, config: dict[str, Any] | None = None, variant: str | None = None
) -> None:
    """Write a complete `M2F2DetForDeepfakeDetection` folder with its processor.

    Args:
        sources: official files in any order: one detector file; for the cosine detector also `vision_tower.pth`,
            unless the detector file has a tower; optionally the bridge blocks (`bridge_adapter.*`).
        output: empty or new folder.
        config: `M2F2DetConfig` fields that differ from the released sizes.
        variant: `"bridge"` or `"cosine"`, to require it; by default determined from the keys.

    Raises:
        ValueError: if a file cannot be read, has an unknown type or the wrong variant, or if any key is missing,
            unexpected or of the wrong shape.
    """
    parts = _sort_sources(sources)
    detector = parts["detector"]
    found = "bridge" if any(key.startswith("bridge_adapter_proj.") for key in detector) else "cosine"
    if variant not in (None, found):
        raise ValueError(
            f"A {variant} detector was requested, but the file contains the {found} one "
            f"({'current_model_180.pth' if found == 'bridge' else 'M2F2_Det_densenet121.pth'} in the release). "
            "Their weights are not interchangeable; leave out `variant` or pass the other file."
        )
    settings = M2F2DetConfig(**{**(config or {}), "variant": found})

    tensors = _renamed(detector, official_key_table(found, detector), "The detector file")
    if parts["tower"]:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("vision_tower.")}
        tensors |= _renamed(parts["tower"], TOWER_TABLE, "The vision tower file")
    elif not any(name.startswith("vision_tower.") for name in tensors):
        raise ValueError("The detector file does not contain a CLIP image tower: add vision_tower.pth to `sources`.")
    if found == "bridge":
        tensors |= bridge_blocks(parts["blocks"], settings)

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
            # Released keys can have the prefix once, twice or not at all; the official loader strips all of them.
            kind = "tower"
            tensors = {f"clip_vision_encoder.model.{k.replace('vision_tower.', '')}": v for k, v in tensors.items()}
        else:
            raise ValueError(
                f"{path} is not an M2F2-Det file: its first keys are {', '.join(list(tensors)[:3])}. Expected a "
                "detector (deepfake_encoder.*), a CLIP tower (vision_model.*) or bridge blocks (bridge_adapter.*)."
            )
        if parts[kind]:
            raise ValueError(f"{path} is a second {kind} file; pass only one.")
        parts[kind] = tensors
    if not parts["detector"]:
        raise ValueError(f"No detector file among {', '.join(str(path) for path in sources) or 'the sources'}.")
    return parts


def bridge_blocks(blocks: dict[str, torch.Tensor], config: M2F2DetConfig) -> dict[str, torch.Tensor]:
    """Return the three blocks from their own file, or with initial values, in which case they have no effect."""
    if blocks:
        return _renamed(blocks, BRIDGE_BLOCK_TABLE, "The bridge block file")
    logger.warning(
        "The official file does not contain the three bridge blocks, so they get initial values. With "
        "bridge_norm='official' they have no effect on any result."
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = [M2F2DetBridgeBlock(config).state_dict() for _ in config.bridge_vision_layers]
    return {
        f"detector.bridge.blocks.{i}.{name}": tensor for i, block in enumerate(fresh) for name, tensor in block.items()
    }


def official_key_table(variant: str, keys: Iterable[str]) -> KeyTable:
    """Return the key table for a detector file; its `keys` (without `module.`) determine the EfficientNet names."""
    cnn, own = (_efficientnet_table(keys), BRIDGE_TABLE) if variant == "bridge" else (DENSENET_TABLE, ())
    return [*PROMPT_TABLE, *HEAD_TABLE, *TOWER_TABLE, *cnn, *own]


def _efficientnet_table(keys: Iterable[str]) -> KeyTable:
    """Convert torchvision's `features.*` names (without `features.`) to those of timm."""
    expanding = {m.groups() for key in keys if (m := re.match(r"deepfake_encoder\.(\d+)\.(\d+)\.block\.3\.", key))}
    network = "detector.encoder.network"

    def block(match: re.Match[str]) -> str:
        stage, index, part, rest = match.groups()
        # A block that does not expand its channels has no first 1x1 convolution, so the numbers of its parts are one
        # lower.
        convs = (
            ["conv_pw", "conv_dw", "se", "conv_pwl"] if (stage, index) in expanding else ["conv_dw", "se", "conv_pw"]
        )
        name = convs[int(part)]
        if name == "se":
            squeeze = {"fc1": "conv_reduce", "fc2": "conv_expand"}
            child, leaf = rest.split(".", 1)
            new = f"se.{squeeze[child]}.{leaf}"
        else:
            child, leaf = rest.split(".", 1)
            order = [c for c in convs if c != "se"].index(name) + 1
            new = f"{name}.{leaf}" if child == "0" else f"bn{order}.{leaf}"
        return f"{network}.blocks.{int(stage) - 1}.{index}.{new}"

    stages = {int(m[1]) for key in keys if (m := re.match(r"deepfake_encoder\.(\d+)\.", key))}
    last = max(stages, default=0)
    return [
        (r"deepfake_encoder\.0\.0\.(.+)", rf"{network}.conv_stem.\1"),
        (r"deepfake_encoder\.0\.1\.(.+)", rf"{network}.bn1.\1"),
        (rf"deepfake_encoder\.{last}\.0\.(weight|bias)", rf"{network}.conv_head.\1"),
        (rf"deepfake_encoder\.{last}\.1\.(.+)", rf"{network}.bn2.\1"),
        (r"deepfake_encoder\.(\d+)\.(\d+)\.block\.(\d+)\.(.+)", block),
    ]
