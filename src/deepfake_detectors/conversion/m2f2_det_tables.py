"""Key tables of the official M2F2-Det files, and what else their pickles hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from deepfake_detectors.conversion.checkpoint_files import IgnoredObject, ignored_dict
from deepfake_detectors.conversion.key_table import KeyTable

__all__ = ["BRIDGE_BLOCK_TABLE", "STAGE_1_CLASSES", "STATE_DICT_KEYS", "TOWER_TABLE", "official_key_table"]

# The stage-1 pickle also holds its scheduler object, which holds its optimizer. Nothing of them is needed, so none of
# their code runs: stand-ins take their names.
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
# Kept in a plain Python list by the official code and so absent from its files; a file of their own if at hand.
BRIDGE_BLOCK_TABLE: KeyTable = [
    (r"bridge_adapter\.(\d+)\.attn\.Wqkv\.(.+)", r"detector.bridge.blocks.\1.qkv_proj.\2"),
    (r"bridge_adapter\.(\d+)\.attn\.out_proj\.(.+)", r"detector.bridge.blocks.\1.out_proj.\2"),
    (r"bridge_adapter\.(\d+)\.(norm[12])\.(.+)", r"detector.bridge.blocks.\1.\2.\3"),
    (r"bridge_adapter\.(\d+)\.ffn\.0\.(.+)", r"detector.bridge.blocks.\1.fc1.\2"),
    (r"bridge_adapter\.(\d+)\.ffn\.3\.(.+)", r"detector.bridge.blocks.\1.fc2.\2"),
]


def official_key_table(variant: str, keys: Iterable[str]) -> KeyTable:
    """The table for a detector file, whose `keys` (without `module.`) decide how its EfficientNet blocks are named."""
    cnn, own = (_efficientnet_table(keys), BRIDGE_TABLE) if variant == "bridge" else (DENSENET_TABLE, ())
    return [*PROMPT_TABLE, *HEAD_TABLE, *TOWER_TABLE, *cnn, *own]


def _efficientnet_table(keys: Iterable[str]) -> KeyTable:
    """torchvision's `features.*` names (without `features.`) to timm's."""
    expanding = {m.groups() for key in keys if (m := re.match(r"deepfake_encoder\.(\d+)\.(\d+)\.block\.3\.", key))}
    network = "detector.encoder.network"

    def block(match: re.Match[str]) -> str:
        stage, index, part, rest = match.groups()
        # A block that does not expand its channels has no first 1x1 convolution: its parts are one number lower.
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
