"""Tiny random LVLM-DFD models with every structural feature of the released one."""

from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, PreTrainedTokenizerFast

from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.modeling.modeling_lvlm_dfd import LvlmDfdForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import LvlmDfdForConditionalGeneration
from deepfake_detectors.modeling.processing_lvlm_dfd import LvlmDfdProcessor
from support.tiny_llm import tiny_tokenizer

SIZE = 56
STOP = 30


def lvlm_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer, with a token of its own for every digit as Llama's has."""
    tokenizer = tiny_tokenizer(markers=False)
    tokenizer.add_tokens([AddedToken(digit, normalized=False) for digit in "0123456789"])
    return tokenizer


def lvlm_dfd_config(**overrides: Any) -> LvlmDfdConfig:
    settings: dict[str, Any] = {
        "imagebind_config": {
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "image_size": SIZE,
                "patch_size": 14,
            },
            "text_config": {
                "vocab_size": 400,
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 8,
                "bos_token_id": 398,
                "eos_token_id": 399,
            },
            "projection_dim": 20,
            "initializer_range": 0.3,
        },
        "tap_layers": [0, 2],
        "num_ctx_tokens": 3,
        "locator_width": 6,
        "classifier_widths": [4, 8],
        "classifier_hidden_size": 10,
        "prompt_widths": [4, 6, 8],
        "num_prompt_tokens": 5,
        # The cosines of random features are far apart already.
        "map_scale": 5.0,
        "stop_token_id": STOP,
    }
    return LvlmDfdConfig(**{**settings, **overrides})


def _randomise(model: Any) -> Any:
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
            elif tensor.is_floating_point() and not name.startswith("language_model."):
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model.eval()


def lvlm_dfd(seed: int = 0, **overrides: Any) -> LvlmDfdForDeepfakeDetection:
    """A tiny model in eval mode whose weights are all random (biases and norms too)."""
    torch.manual_seed(seed)
    return _randomise(LvlmDfdForDeepfakeDetection(lvlm_dfd_config(**overrides)))


def lvlm_dfd_llm(seed: int = 0, **overrides: Any) -> LvlmDfdForConditionalGeneration:
    torch.manual_seed(seed)
    text_config = {
        "model_type": "llama",
        "vocab_size": len(lvlm_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "initializer_range": 0.3,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    }
    return _randomise(LvlmDfdForConditionalGeneration(lvlm_dfd_config(**{"text_config": text_config, **overrides})))


def lvlm_image_processor(**options: Any) -> LvlmDfdImageProcessor:
    return LvlmDfdImageProcessor(size={"height": SIZE, "width": SIZE}, **options)


def lvlm_verdict_processor(**options: Any) -> VerdictProcessor:
    return VerdictProcessor(lvlm_image_processor(**options))


def lvlm_dfd_processor(**options: Any) -> LvlmDfdProcessor:
    return LvlmDfdProcessor(lvlm_image_processor(), lvlm_tokenizer(), **{"stop_token_id": STOP, **options})


def tiny_lvlm_dfd(folder: Path, crop_mode: str = "squash", **overrides: Any) -> Path:
    """Save a tiny model without a language model and its processor to `folder`."""
    lvlm_dfd(**overrides).save_pretrained(folder)
    lvlm_verdict_processor(crop_mode=crop_mode).save_pretrained(folder)
    return folder


def tiny_lvlm_dfd_llm(folder: Path, **overrides: Any) -> Path:
    """Save a tiny explaining model and its processor to `folder`."""
    lvlm_dfd_llm(**overrides).save_pretrained(folder)
    lvlm_dfd_processor().save_pretrained(folder)
    return folder
