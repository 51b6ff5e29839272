"""Mini bases of the families whose base is one folder: random weights, the family's own classes, prompts and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from deepfake_detectors.modeling.configuration_antifakeprompt import PROMPTS, AntifakePromptConfig
from deepfake_detectors.modeling.configuration_fakevlm import FakeVLMConfig
from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import LvlmDfdForConditionalGeneration
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
from deepfake_detectors.modeling.prompting_fakevlm import QUESTION as FAKEVLM_QUESTION
from deepfake_detectors.modeling.prompting_fakevlm import build_prompt
from deepfake_detectors.train.mini_m2f2_det import mini_m2f2_det
from deepfake_detectors.train.mini_parts import LLAMA, PICTURE, VISION, laid_over, with_prompts
from deepfake_detectors.train.mini_tokenizer import bert_tokenizer, llama_tokenizer

if TYPE_CHECKING:
    from deepfake_detectors.train.mini_base import MiniBaseArguments

__all__ = ["FAMILIES"]


def _fakevlm(texts: Sequence[str], arguments: MiniBaseArguments) -> tuple[Any, Any]:
    prompts = [*(build_prompt(style=style) for style in ("raw", "vicuna_v1")), FAKEVLM_QUESTION]
    prompts += ["This is a real image.", "This is a fake image."]
    tokenizer = llama_tokenizer(with_prompts(texts, prompts, ["<image>"]), arguments.vocabulary, ["<image>", "<pad>"])
    tokenizer.pad_token = "<pad>"
    fields = {
        "vision_config": {"model_type": "clip_vision_model", **VISION},
        "text_config": {**LLAMA, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id},
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "prompt_style": "hf_chat",  # the form of the newer official training
    }
    model = FakeVLMForDeepfakeDetection(FakeVLMConfig(**laid_over(fields, arguments.model_config)))
    model.set_verdict_tokens(tokenizer)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = FakeVLMProcessor(
        FakeVLMImageProcessor(**PICTURE),
        tokenizer,
        patch_size=model.config.vision_config.patch_size,
        prompt_style=model.config.prompt_style,
    )
    return model, processor


def _lvlm_dfd(texts: Sequence[str], arguments: MiniBaseArguments) -> tuple[Any, Any]:
    prompts = [OPENING, dialogue_prompt(LVLM_QUESTION), *(score_sentence(50, name) for name in ("deepfake", "KFD"))]
    tokenizer = llama_tokenizer(with_prompts(texts, [*prompts, ANSWER_END]), arguments.vocabulary)
    tokenizer.pad_token = tokenizer.eos_token
    # An answer ends at the piece behind its line break ("##" in Vicuna's tokenizer).
    end = tokenizer.convert_ids_to_tokens(tokenizer(ANSWER_END, add_special_tokens=False).input_ids)
    stop = tokenizer.convert_tokens_to_ids(end[end.index("<0x0A>") + 1])
    fields = {
        "imagebind_config": {
            "vision_config": VISION,
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
        "text_config": {**LLAMA, "vocab_size": len(tokenizer)},
        "tap_layers": [0, 1, 2],
        "num_ctx_tokens": 4,
        "locator_width": 16,
        "classifier_widths": [8, 16, 32],
        "classifier_hidden_size": 32,
        "prompt_widths": [4, 8, 8, 16, 16, 16],
        "stop_token_id": stop,
    }
    model = LvlmDfdForConditionalGeneration(LvlmDfdConfig(**laid_over(fields, arguments.model_config)))
    size = model.config.image_size
    image_processor = LvlmDfdImageProcessor(size={"height": size, "width": size})
    return model, LvlmDfdProcessor(image_processor, tokenizer, stop_token_id=model.config.stop_token_id)


def _antifakeprompt(texts: Sequence[str], arguments: MiniBaseArguments) -> tuple[Any, Any]:
    questions = ["Is this photo real?", *(EXPLANATION_QUESTION.format(verdict=word) for word in ("real", "fake"))]
    known = with_prompts(texts, [*questions, *PROMPTS.values(), "yes", "no"], ["[*]"])
    tokenizer, question_tokenizer = llama_tokenizer(known, arguments.vocabulary), bert_tokenizer(known)
    rows, question_rows = len(tokenizer), len(question_tokenizer)  # the learned words lie behind both tables
    add_soft_word(tokenizer, question_tokenizer)
    queries = arguments.model_config.get("num_query_tokens", 8)
    processor = AntifakePromptProcessor(
        AntifakePromptImageProcessor(), tokenizer, question_tokenizer, num_query_tokens=queries
    )
    fields = {
        "vision_config": VISION,
        "qformer_config": {
            "vocab_size": question_rows,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "encoder_hidden_size": VISION["hidden_size"],
        },
        "text_config": {**LLAMA, "vocab_size": rows},
        "num_query_tokens": queries,
        **processor.prompt_fields(),
    }
    return (
        AntifakePromptForDeepfakeDetection(AntifakePromptConfig(**laid_over(fields, arguments.model_config))),
        processor,
    )


# family -> (texts to learn words from, options) to model and processor
FAMILIES: dict[str, Callable[[Sequence[str], MiniBaseArguments], tuple[Any, Any]]] = {
    "m2f2_det": mini_m2f2_det,
    "fakevlm": _fakevlm,
    "lvlm_dfd": _lvlm_dfd,
    "antifakeprompt": _antifakeprompt,
}
