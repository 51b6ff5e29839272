"""Tiny chat models of several architectures, each with its processor, special tokens and chat template.

The tokenizers are built here and only contain the words they are given. The chat templates are ours, in the style of
each architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerFast

from deepfake_detectors.modeling.configuration_chat_vlm import (
    ANSWERS,
    EXPLANATION_QUESTION,
    QUESTION,
    ChatVlmConfig,
)
from deepfake_detectors.modeling.modeling_chat_vlm import ChatVlmForDeepfakeDetection
from deepfake_detectors.modeling.processing_chat_vlm import ChatVlmProcessor
from deepfake_detectors.train.mini import Plan, laid_over
from deepfake_detectors.train.mini.tokenizers import byte_level_tokenizer, llama_tokenizer

__all__ = ["ARCHITECTURES", "chat_vlm"]

_CHATML_PARTS = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'PICTURE' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
)
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    + _CHATML_PARTS
    + "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_QWEN2_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
)
# LLaVA-OneVision writes a space before every turn, which its generation prompt does not have.
_LLAVA_ONEVISION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_IDEFICS3 = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<image>' }}"
    "{% endif %}{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_GEMMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def chat_vlm(plan: Plan) -> tuple[Any, Any]:
    """Build a chat model as a detector.

    The field `vlm_config` has the architecture, one of `ARCHITECTURES`, and fields that override its tiny ones.

    Raises:
        ValueError: for an unknown architecture.
    """
    own = plan.config.get("vlm_config", {})
    kind = own.get("model_type", "qwen2_5_vl")
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"vlm_config has the architecture {kind!r}; tiny models exist for {', '.join(ARCHITECTURES)}."
        )
    processor, fields = ARCHITECTURES[kind](plan)
    asked = {name: value for name, value in plan.config.items() if name != "vlm_config"}
    config = ChatVlmConfig(vlm_config=laid_over({"model_type": kind, **fields}, own), **asked)
    model = ChatVlmForDeepfakeDetection(config)
    for name, weight in model.named_parameters():
        if name.endswith("mm_input_projection_weight"):  # Gemma 3's weight starts at zero, which would hide the image
            torch.nn.init.normal_(weight, std=0.02)
    asked = {name: getattr(config, name) for name in ("question", "answers", "system_prompt", "explanation_question")}
    wrapped = ChatVlmProcessor(processor, **asked)
    tokenizer = wrapped.tokenizer
    settings = model.generation_config
    settings.bos_token_id, settings.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
    settings.eos_token_id = tokenizer.eos_token_id
    model.set_answers(wrapped)
    return model, wrapped


def _words(plan: Plan) -> list[str]:
    answers = [text for texts in ANSWERS.values() for text in texts]
    sentences = ["This is a real image.", "This is a fake image.", "Does the image looks real/fake?"]
    more = [plan.config.get("question", ""), *(t for texts in plan.config.get("answers", {}).values() for t in texts)]
    return plan.words([QUESTION, EXPLANATION_QUESTION, *answers, *sentences, "user assistant system", *more])


def _chatml_tokenizer(plan: Plan, named: dict[str, str], added: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *added]
    return byte_level_tokenizer(
        _words(plan), plan.vocabulary, special, eos="<|im_end|>", pad="<|endoftext|>", named=named
    )


def _text(plan: Plan, tokenizer: Any, kind: str, **more: Any) -> dict[str, Any]:
    size = plan.size
    return {
        "model_type": kind,
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "intermediate_size": size.inner_width,
        "num_hidden_layers": size.language_layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def _qwen(plan: Plan, version: str) -> tuple[Any, dict[str, Any]]:
    """Qwen-VL: images at their own size, positions on three axes."""
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    vision = ("<|vision_start|>", "<|vision_end|>")
    tokenizer = _chatml_tokenizer(plan, named, (*vision, *named.values()))
    patch = plan.size.patch_size
    side = plan.size.image_size // (2 * patch) * 2 * patch
    pictures = {"patch_size": patch, "size": {"shortest_edge": 4 * patch * patch, "longest_edge": side * side}}
    template = _CHATML.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>")
    processor_class = {"qwen2_5": transformers.Qwen2_5_VLProcessor, "qwen3": transformers.Qwen3VLProcessor}[version]
    video = {"qwen2_5": transformers.Qwen2VLVideoProcessor, "qwen3": transformers.Qwen3VLVideoProcessor}[version]
    processor = processor_class(
        transformers.Qwen2VLImageProcessor(**pictures),
        tokenizer,
        video(**pictures),
        chat_template=(_QWEN2_SYSTEM if version == "qwen2_5" else "") + template,
    )
    tower: dict[str, Any] = {
        "depth": plan.size.vision_layers,
        "hidden_size": plan.size.width,
        "intermediate_size": plan.size.inner_width,
        "num_heads": plan.size.heads,
        "patch_size": patch,
        "out_hidden_size": plan.size.width,
    }
    head = plan.size.width // plan.size.heads
    sections = [head // 2 - 2 * (head // 6), head // 6, head // 6]
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
    if version == "qwen2_5":
        tower |= {"window_size": 2 * patch, "fullatt_block_indexes": [plan.size.vision_layers - 1]}
        text = _text(plan, tokenizer, "qwen2_5_vl_text", rope_parameters=rope)
    else:
        tower |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        rope["mrope_interleaved"] = True
        text = _text(plan, tokenizer, "qwen3_vl_text", rope_parameters=rope, head_dim=head)
    ids = tokenizer.convert_tokens_to_ids
    return processor, {
        "vision_config": tower,
        "text_config": text,
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def _qwen2_5_vl(plan: Plan) -> tuple[Any, dict[str, Any]]:
    return _qwen(plan, "qwen2_5")


def _qwen3_vl(plan: Plan) -> tuple[Any, dict[str, Any]]:
    return _qwen(plan, "qwen3")


def _internvl(plan: Plan) -> tuple[Any, dict[str, Any]]:
    """InternVL: tiles of one size, as many as an image's shape asks for."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _chatml_tokenizer(plan, named, tuple(named.values()))
    size = plan.size
    square = {"height": size.image_size, "width": size.image_size}
    tokens = (size.image_size // size.patch_size // 2) ** 2
    processor = transformers.InternVLProcessor(
        transformers.GotOcr2ImageProcessor(size=square, crop_to_patches=True, min_patches=1, max_patches=3),
        tokenizer,
        transformers.InternVLVideoProcessor(size=square),
        image_seq_length=tokens,
        chat_template=_CHATML.replace("PICTURE", "<IMG_CONTEXT>\n"),
    )
    return processor, {
        "vision_config": {"model_type": "internvl_vision", **_tower(plan)},
        "text_config": _text(plan, tokenizer, "qwen2"),
        "image_token_id": tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        "image_seq_length": tokens,
    }


def _tower(plan: Plan) -> dict[str, Any]:
    return dict(plan.size.vision)


def _llava_onevision(plan: Plan) -> tuple[Any, dict[str, Any]]:
    """LLaVA-OneVision: an image in pieces of its best-fitting grid, and whole."""
    named = {"image_token": "<image>", "video_token": "<video>"}
    tokenizer = _chatml_tokenizer(plan, named, tuple(named.values()))
    size = plan.size
    side = size.image_size
    grids = [[side, side], [side, 2 * side], [2 * side, side], [2 * side, 2 * side]]
    square = {"height": side, "width": side}
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=grids),
        tokenizer,
        transformers.LlavaOnevisionVideoProcessor(size=square),
        num_image_tokens=(side // size.patch_size) ** 2,
        vision_feature_select_strategy="full",
        chat_template=_LLAVA_ONEVISION,
    )
    return processor, {
        "vision_config": {"model_type": "siglip_vision_model", **_tower(plan), "vision_use_head": False},
        "text_config": _text(plan, tokenizer, "qwen2"),
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "video_token_index": tokenizer.convert_tokens_to_ids("<video>"),
        "image_grid_pinpoints": grids,
    }


def _idefics(plan: Plan, kind: str) -> tuple[Any, dict[str, Any]]:
    """Idefics 3 and SmolVLM: an image in numbered pieces, whose markers are words of their own."""
    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    places = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))
    tokenizer = _chatml_tokenizer(plan, named, (*named.values(), *places))
    tokenizer.eos_token = "<end_of_utterance>"
    size = plan.size
    side = size.image_size // (2 * size.patch_size) * 2 * size.patch_size
    tokens = (side // size.patch_size // 2) ** 2
    pictures = {"size": {"longest_edge": 2 * side}, "max_image_size": {"longest_edge": side}}
    if kind == "idefics3":
        processor = transformers.Idefics3Processor(
            transformers.Idefics3ImageProcessor(**pictures), tokenizer, image_seq_len=tokens, chat_template=_IDEFICS3
        )
        tower, text = "idefics3_vision", "llama"
    else:
        processor = transformers.SmolVLMProcessor(
            transformers.SmolVLMImageProcessor(**pictures),
            tokenizer,
            transformers.SmolVLMVideoProcessor(**pictures),
            image_seq_len=tokens,
            chat_template=_IDEFICS3,
        )
        tower, text = "smolvlm_vision", "llama"
    return processor, {
        "vision_config": {"model_type": tower, **_tower(plan), "image_size": side},
        "text_config": _text(plan, tokenizer, text),
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "scale_factor": 2,
    }


def _idefics3(plan: Plan) -> tuple[Any, dict[str, Any]]:
    return _idefics(plan, "idefics3")


def _smolvlm(plan: Plan) -> tuple[Any, dict[str, Any]]:
    return _idefics(plan, "smolvlm")


def _gemma3(plan: Plan) -> tuple[Any, dict[str, Any]]:
    """Gemma 3: one square per image, read in both directions, and layers that see only a window."""
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = llama_tokenizer(
        _words(plan), plan.vocabulary, ["<pad>", "<start_of_turn>", "<end_of_turn>", *named.values()], named=named
    )
    tokenizer.pad_token, tokenizer.eos_token = "<pad>", "<end_of_turn>"
    size = plan.size
    tokens = (size.image_size // size.patch_size // 2) ** 2
    square = {"height": size.image_size, "width": size.image_size}
    processor = transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessor(size=square),
        tokenizer,
        image_seq_length=tokens,
        chat_template=_GEMMA3,
    )
    layers = ["sliding_attention", *["full_attention"] * (size.language_layers - 1)]
    text = _text(
        plan, tokenizer, "gemma3_text", head_dim=size.width // size.heads, sliding_window=16, layer_types=layers
    )
    ids = tokenizer.convert_tokens_to_ids
    return processor, {
        "vision_config": {"model_type": "siglip_vision_model", **_tower(plan), "vision_use_head": False},
        "text_config": text,
        "mm_tokens_per_image": tokens,
        "boi_token_index": ids("<start_of_image>"),
        "eoi_token_index": ids("<end_of_image>"),
        "image_token_index": ids("<image_soft_token>"),
    }


# `model_type` -> builder of the stock processor and of the config's fields.
ARCHITECTURES: dict[str, Callable[[Plan], tuple[Any, dict[str, Any]]]] = {
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
}
