"""Tiny random CLIP probes with every structural feature of the built-in one, for unit tests."""

from pathlib import Path
from typing import Any

import torch

from deepfake_detectors.modeling.configuration_clip_probe import ClipProbeConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_clip_probe import ClipProbeImageProcessor
from deepfake_detectors.modeling.modeling_clip_probe import ClipProbeForDeepfakeDetection

SIZE = 56
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 14,
    "projection_dim": 24,
}
HEADS: dict[str, Any] = {
    "picture": {"features": ["class_token", "patch_mean"], "layers": [3]},
    "face": {"features": ["patch_mean"], "layers": [2, 3], "clip": None, "subject": "faces"},
}
PREPROCESSING = {"picture": {"shrink_to": 70, "jpeg_quality": 85}, "face": {}}
BAND = {
    "low": 0.25,
    "high": 0.75,
    "fitted_on": "a test",
    "false_alarm_rate": 0.04,
    "miss_rate": 0.05,
    "coverage": 0.6,
}


def clip_probe_config(**overrides: Any) -> ClipProbeConfig:
    heads = overrides.pop("heads", {name: dict(head) for name, head in HEADS.items()})
    default = {"default_head": "picture"} if "picture" in heads else {}
    return ClipProbeConfig(**{"vision_config": VISION, "heads": heads, **default, **overrides})


def clip_probe(seed: int = 0, **overrides: Any) -> ClipProbeForDeepfakeDetection:
    """A tiny model in eval mode whose weights are all random (statistics of the heads too)."""
    torch.manual_seed(seed)
    model = ClipProbeForDeepfakeDetection(clip_probe_config(**overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for head in model.heads.values():
            head.mean.normal_(0, 0.3)
            head.deviation.uniform_(0.2, 0.6)
    return model


def clip_probe_processor() -> VerdictProcessor:
    return VerdictProcessor(
        ClipProbeImageProcessor(
            size={"shortest_edge": SIZE},
            crop_size={"height": SIZE, "width": SIZE},
            heads={name: dict(settings) for name, settings in PREPROCESSING.items()},
            default_head="picture",
        )
    )


def rounded_to_int8(model: ClipProbeForDeepfakeDetection) -> ClipProbeForDeepfakeDetection:
    """The model with linear layers of the tower that int8 values and scales give exactly, to be stored so."""
    with torch.no_grad():
        for module in model.vision_tower.modules():
            if isinstance(module, torch.nn.Linear):
                scale = module.weight.abs().amax(dim=1, keepdim=True) / 127
                module.weight.copy_(torch.round(module.weight / scale) * scale)
    model.config.encoder_storage = "int8"
    return model


def tiny_clip_probe(folder: Path, **overrides: Any) -> Path:
    """Save a tiny model and its processor to `folder`."""
    clip_probe(**overrides).save_pretrained(folder)
    clip_probe_processor().save_pretrained(folder)
    return folder


def tiny_int8_clip_probe(folder: Path, **overrides: Any) -> Path:
    """The same with the encoder stored in int8."""
    rounded_to_int8(clip_probe(**overrides)).save_pretrained(folder)
    clip_probe_processor().save_pretrained(folder)
    return folder
