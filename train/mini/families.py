"""Builders of tiny models for the families of this package; each takes a `Plan` and returns model and processor."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

from deepfake_detectors.modeling.configuration_antifakeprompt import PROMPTS, AntifakePromptConfig
from deepfake_detectors.modeling.configuration_fakevlm import FakeVLMConfig
from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor, M2F2DetImageProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd import LvlmDfdForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import LvlmDfdForConditionalGeneration
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from deepfake_detectors.modeling.processing_antifakeprompt import (
    EXPLANATION_QUESTION,
    AntifakePromptProcessor,
    add_soft_word,
)
from deepfake_detectors.modeling.processing_fakevlm import FakeVLMProcessor
from deepfake_detectors.modeling.processing_lvlm_dfd import (
    ANSWER_END,
    OPENING,
    LvlmDfdProcessor,
    dialogue_prompt,
    score_sentence,
)
from deepfake_detectors.modeling.processing_lvlm_dfd import QUESTION as LVLM_QUESTION
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.prompting_fakevlm import QUESTION as FAKEVLM_QUESTION
from deepfake_detectors.modeling.prompting_fakevlm import build_prompt
from deepfake_detectors.modeling.prompting_m2f2_det import DEEPFAKE_MARKER, IMAGE_MARKER, inference_prompt
from deepfake_detectors.train.mini import MINI, Plan, Size
from deepfake_detectors.train.mini.tokenizers import bert_tokenizer, llama_tokenizer, stop_token

__all__ = [
    "antifakeprompt",
    "antifakeprompt_tokenizers",
    "fakevlm",
    "fakevlm_tokenizer",
    "instructblip_fields",
    "lvlm_dfd",
    "lvlm_dfd_tokenizer",
    "m2f2_det",
    "m2f2_det_fields",
    "m2f2_det_tokenizer",
]

M2F2_DET_RECIPE = "recipes/m2f2_det_default.yaml"  # sizes and images of the bundled detector
MARKERS = [IMAGE_MARKER, DEEPFAKE_MARKER]
M2F2_DET_ENCODERS: dict[str, dict[str, Any]] = {
    "bridge": {
        "type": "efficientnet",
        # expand, kernel, stride, in, out, layers
        "blocks": [[1, 3, 1, 8, 8, 1], [6, 3, 2, 8, 16, 2], [6, 5, 2, 16, 24, 1], [1, 3, 2, 24, 16, 1]],
        "num_features": 32,
    },
    "cosine": {"type": "densenet", "growth_rate": 4, "block_config": [1, 2], "num_init_features": 8, "bn_size": 2},
}


def m2f2_det(plan: Plan) -> tuple[Any, Any]:
    """Build M2F2-Det. At `MINI` size its detector is that of the package's default recipe."""
    fields, picture = m2f2_det_fields(plan)
    image_processor = M2F2DetImageProcessor(**picture)
    if not plan.generates:
        model = M2F2DetForDeepfakeDetection(M2F2DetConfig(**plan.over(fields)))
        return model, VerdictProcessor(image_processor)
    tokenizer = m2f2_det_tokenizer(plan)
    fields["text_config"] = {**plan.size.language, "vocab_size": len(tokenizer)}
    model = M2F2DetForConditionalGeneration(M2F2DetConfig(**plan.over(fields)))
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # Questions have the form of training, because the form of the official evaluation relies on a pretrained Vicuna.
    processor = M2F2DetProcessor(
        image_processor, tokenizer, image_seq_length=model.config.num_patches, prompt_style="vicuna_v1"
    )
    return model, processor


def m2f2_det_tokenizer(plan: Plan) -> Any:
    """Return a tokenizer with the two placeholders as its last ids."""
    prompts = [inference_prompt("", style) for style in ("official_cli", "vicuna_v1")]
    tokenizer = llama_tokenizer(plan.words(prompts, MARKERS), plan.vocabulary, MARKERS)
    tokenizer.pad_token = tokenizer.unk_token  # as in LLaVA with Vicuna's tokenizer
    return tokenizer


def m2f2_det_fields(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the config fields of a detector, and the fields of its image processor."""
    if plan.size == MINI:
        recipe = yaml.safe_load(files("deepfake_detectors.train").joinpath(M2F2_DET_RECIPE).read_text("utf-8"))
        return recipe["model_config"], recipe["image_processor"]
    variant = plan.config.get("variant", "cosine")
    fields = {
        "variant": variant,
        "hidden_size": 24,
        "encoder_config": M2F2_DET_ENCODERS[variant],
        "vision_config": {**plan.size.vision, "num_hidden_layers": 5},
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
    return fields, plan.size.picture


def fakevlm(plan: Plan) -> tuple[Any, Any]:
    """Build FakeVLM with the prompt of the newer official training."""
    tokenizer = fakevlm_tokenizer(plan)
    fields = {
        "vision_config": {"model_type": "clip_vision_model", **plan.size.vision},
        "text_config": {**plan.size.language, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id},
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "prompt_style": "hf_chat",
    }
    model = FakeVLMForDeepfakeDetection(FakeVLMConfig(**plan.over(fields)))
    model.set_verdict_tokens(tokenizer)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = FakeVLMProcessor(
        FakeVLMImageProcessor(**plan.size.picture),
        tokenizer,
        patch_size=model.config.vision_config.patch_size,
        prompt_style=model.config.prompt_style,
    )
    return model, processor


def fakevlm_tokenizer(plan: Plan) -> Any:
    """Return a tokenizer whose last ids are `<image>` and `<pad>`."""
    prompts = [*(build_prompt(style=style) for style in ("raw", "vicuna_v1")), FAKEVLM_QUESTION]
    prompts += ["This is a real image.", "This is a fake image."]
    tokenizer = llama_tokenizer(plan.words(prompts, ["<image>"]), plan.vocabulary, ["<image>", "<pad>"])
    tokenizer.pad_token = "<pad>"
    return tokenizer


def lvlm_dfd(plan: Plan) -> tuple[Any, Any]:
    """Build LVLM-DFD."""
    fields: dict[str, Any] = {
        "imagebind_config": {
            "vision_config": plan.size.vision,
            "text_config": {
                "vocab_size": 400,  # only letters are ever looked up
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 8,
                "bos_token_id": 398,
                "eos_token_id": 399,
            },
            "projection_dim": 32,
        },
        "tap_layers": [0, 1, 2],
        "num_ctx_tokens": 4,
        "locator_width": 16,
        "classifier_widths": [8, 16, 32],
        "classifier_hidden_size": 32,
        "prompt_widths": [4, 8, 8, 16, 16, 16] if plan.size == MINI else [4, 6, 8],  # each pools the maps once
    }
    image_processor = LvlmDfdImageProcessor(size={"height": plan.size.image_size, "width": plan.size.image_size})
    if not plan.generates:
        model = LvlmDfdForDeepfakeDetection(LvlmDfdConfig(**plan.over(fields)))
        return model, VerdictProcessor(image_processor)
    tokenizer = lvlm_dfd_tokenizer(plan)
    fields["text_config"] = {**plan.size.language, "vocab_size": len(tokenizer)}
    fields["stop_token_id"] = stop_token(tokenizer)
    model = LvlmDfdForConditionalGeneration(LvlmDfdConfig(**plan.over(fields)))
    return model, LvlmDfdProcessor(image_processor, tokenizer, stop_token_id=model.config.stop_token_id)


def lvlm_dfd_tokenizer(plan: Plan) -> Any:
    """Return a tokenizer that covers the prompts."""
    prompts = [OPENING, dialogue_prompt(LVLM_QUESTION), *(score_sentence(50, name) for name in ("deepfake", "KFD"))]
    tokenizer = llama_tokenizer(plan.words([*prompts, ANSWER_END]), plan.vocabulary)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def antifakeprompt(plan: Plan) -> tuple[Any, Any]:
    """Build AntifakePrompt."""
    tokenizer, question_tokenizer = antifakeprompt_tokenizers(plan)
    # The learned words come after both tables.
    base = instructblip_fields(plan.size, len(tokenizer), len(question_tokenizer))
    add_soft_word(tokenizer, question_tokenizer)
    settings = {
        name: plan.config[name]
        for name in ("prompt", "plain_prompt", "soft_word_sides", "candidates")
        if name in plan.config
    }
    processor = AntifakePromptProcessor(
        AntifakePromptImageProcessor(**plan.size.picture),
        tokenizer,
        question_tokenizer,
        num_query_tokens=plan.config.get("num_query_tokens", base["num_query_tokens"]),
        **settings,
    )
    config = AntifakePromptConfig(**plan.over({**base, **processor.prompt_fields()}))
    return AntifakePromptForDeepfakeDetection(config), processor


def antifakeprompt_tokenizers(plan: Plan) -> tuple[Any, Any]:
    """Return tokenizers of the language model and of the Q-Former, without the learned word."""
    questions = ["Is this photo real?", *(EXPLANATION_QUESTION.format(verdict=word) for word in ("real", "fake"))]
    known = plan.words([*questions, *PROMPTS.values(), "yes", "no"], ["[*]"])
    return llama_tokenizer(known, plan.vocabulary), bert_tokenizer(known)


def instructblip_fields(size: Size, rows: int, question_rows: int) -> dict[str, Any]:
    """Return config fields of an InstructBLIP.

    Args:
        size: size of the model.
        rows: rows of the language model's embedding table.
        question_rows: rows of the Q-Former's embedding table.
    """
    return {
        "vision_config": size.vision,
        "qformer_config": {
            "vocab_size": question_rows,
            "hidden_size": size.width,
            "intermediate_size": size.inner_width,
            "num_hidden_layers": 2,
            "num_attention_heads": size.heads,
            "max_position_embeddings": 128,
            "encoder_hidden_size": size.width,
        },
        "text_config": {**size.language, "vocab_size": rows},
        "num_query_tokens": 8,
    }
