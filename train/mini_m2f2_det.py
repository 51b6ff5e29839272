"""The mini base of M2F2-Det: a detector, a language model, and what goes between them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.prompting_m2f2_det import DEEPFAKE_MARKER, IMAGE_MARKER, inference_prompt
from deepfake_detectors.train.calibrated_head import fold_calibration
from deepfake_detectors.train.mini_parts import LLAMA, laid_over, with_prompts
from deepfake_detectors.train.mini_tokenizer import llama_tokenizer
from deepfake_detectors.train.stage2_base import language_fields

if TYPE_CHECKING:
    from deepfake_detectors.train.mini_base import MiniBaseArguments

__all__ = ["mini_m2f2_det"]

RECIPE = "recipes/m2f2_det_default.yaml"  # of the detector: its sizes and its pictures
MARKERS = [IMAGE_MARKER, DEEPFAKE_MARKER]


def mini_m2f2_det(texts: Sequence[str], arguments: MiniBaseArguments) -> tuple[Any, Any]:
    """Model and processor; the projectors are random, and what `arguments` names no folder for."""
    language, tokenizer = _language_model(texts, arguments)
    detector, fields, image_processor = _detector(arguments.detector)
    fields = laid_over({**fields, "text_config": language_fields(language.config)}, arguments.model_config)
    model = M2F2DetForConditionalGeneration(M2F2DetConfig(**fields))
    if arguments.language_model is not None:
        model.model.language_model.load_state_dict(language.model.state_dict())
        model.lm_head.load_state_dict(language.lm_head.state_dict())
    if detector is not None:
        model.model.vision_tower.load_state_dict(detector.vision_tower.state_dict())
        model.model.detector.load_state_dict(detector.detector.state_dict())
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # Questions are asked as in training: the official evaluation's other form relies on what Vicuna knew before.
    processor = M2F2DetProcessor(
        image_processor, tokenizer, image_seq_length=model.config.num_patches, prompt_style="vicuna_v1"
    )
    return model, processor


def _language_model(texts: Sequence[str], arguments: MiniBaseArguments) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, both with the two placeholders as last ids."""
    if arguments.language_model is not None:
        tokenizer = AutoTokenizer.from_pretrained(arguments.language_model)
        language = AutoModelForCausalLM.from_pretrained(arguments.language_model)
        tokenizer.add_tokens(MARKERS, special_tokens=True)
        language.resize_token_embeddings(len(tokenizer))
        return language, tokenizer
    prompts = [inference_prompt("", style) for style in ("official_cli", "vicuna_v1")]
    tokenizer = llama_tokenizer(with_prompts(texts, prompts, MARKERS), arguments.vocabulary, MARKERS)
    tokenizer.pad_token = tokenizer.unk_token  # as LLaVA does with Vicuna's
    return LlamaForCausalLM(LlamaConfig(**{**LLAMA, "vocab_size": len(tokenizer)})), tokenizer


def _detector(folder: str | None) -> tuple[Any, dict[str, Any], Any]:
    """The trained detector (`None`: random weights), the config fields that describe it, and its image processor."""
    if folder is None:
        recipe = files("deepfake_detectors.train").joinpath(RECIPE).read_text("utf-8")
        fields = yaml.safe_load(recipe)
        return None, fields["model_config"], M2F2DetImageProcessor(**fields["image_processor"])
    detector = M2F2DetForDeepfakeDetection.from_pretrained(folder)
    # Before the language model learns to read P(fake), not behind its back.
    fold_calibration(detector)
    fields = {name: value for name, value in detector.config.to_dict().items() if name != "architectures"}
    return detector, fields, AutoProcessor.from_pretrained(folder).image_processor
