"""Tiny random detectors with every structural feature of the released ones, for unit tests."""

from pathlib import Path
from typing import Any

import torch

from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection

ENCODERS: dict[str, dict[str, Any]] = {
    "bridge": {
        "type": "efficientnet",
        # expand, kernel, stride, in, out, layers
        "blocks": [[1, 3, 1, 8, 8, 1], [6, 3, 2, 8, 16, 2], [6, 5, 2, 16, 24, 1], [1, 3, 2, 24, 16, 1]],
        "num_features": 32,
    },
    "cosine": {"type": "densenet", "growth_rate": 4, "block_config": [1, 2], "num_init_features": 8, "bn_size": 2},
}


def m2f2_det_config(variant: str = "cosine", **overrides: Any) -> M2F2DetConfig:
    settings: dict[str, Any] = {
        "variant": variant,
        "hidden_size": 24,
        "encoder_config": ENCODERS[variant],
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
        },
        "prompt_text_config": {
            "vocab_size": 64,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 12,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        "bridge_vision_layers": [1, 2, 3],
        "bridge_encoder_layers": ["blocks.1", "blocks.2", "blocks.3"],
        "bridge_dim": 8,
        "bridge_adapter_dim": 12,
        "bridge_intermediate_size": 6,
    }
    return M2F2DetConfig(**{**settings, **overrides})


def m2f2_det(variant: str = "cosine", seed: int = 0, **overrides: Any) -> M2F2DetForDeepfakeDetection:
    """A tiny model in eval mode whose weights are all random (biases and norms too)."""
    torch.manual_seed(seed)
    model = M2F2DetForDeepfakeDetection(m2f2_det_config(variant, **overrides))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
    return model.eval()


def verdict_processor(image_size: int = 56) -> VerdictProcessor:
    return VerdictProcessor(
        M2F2DetImageProcessor(
            size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
        )
    )


def tiny_m2f2_det(folder: Path, variant: str = "cosine", **overrides: Any) -> Path:
    """Save a tiny model and its processor to `folder`."""
    m2f2_det(variant, **overrides).save_pretrained(folder)
    verdict_processor().save_pretrained(folder)
    return folder
