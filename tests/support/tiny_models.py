"""The tiny models of `deepfake_detectors.train.mini`, louder: so that every input shows in the output.

Untrained weights are small, and their biases zero: the verdicts of two pictures would differ by less than rounding.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import (
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedTokenizerFast,
)

from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor, M2F2DetImageProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.modeling.processing_antifakeprompt import AntifakePromptProcessor, add_soft_word
from deepfake_detectors.modeling.processing_fakevlm import FakeVLMProcessor
from deepfake_detectors.modeling.processing_lvlm_dfd import LvlmDfdProcessor
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.train.mini import TINY, Plan, families, laid_over, tiny_model
from deepfake_detectors.train.mini.tokenizers import llama_tokenizer

SIZE, PATCH = TINY.image_size, TINY.patch_size
STOP = 30  # id that ends LVLM-DFD's answers here
QUERIES = 8
ENCODERS = families.M2F2_DET_ENCODERS
TEXTS = [
    "Is it real? The image is fake. The image looks real.",
    "The skin is overly smooth. The eyes look unnaturally asymmetric. The nose lacks detail. It looks real or fake.",
    "Is this photo real? yes no not sure. What about the eyes? The eyes look odd. 0 1 2 3 4 5 6 7 8 9",
    *["This is a real image. The fur is clear and well-defined."] * 4,
    *["This is a fake image. The outlines are blurry, the eyes look unnatural."] * 4,
]
PLAN = Plan(TINY, TEXTS, 500, True, {})


@torch.no_grad()
def _shake(model: torch.nn.Module, noise: float, drawn: dict[str, float]) -> None:
    """Add noise to every weight and statistic but a language model's; draw weights named in `drawn` anew."""
    for name, tensor in model.named_parameters():
        if "language_model" not in name:
            tensor.add_(noise * torch.randn_like(tensor))
        for part, deviation in drawn.items():
            if part in name:
                tensor.normal_(0, deviation)
    for name, tensor in model.named_buffers():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.1)


def _tiny(family: str, noise: float, drawn: dict[str, float], **options: Any) -> Any:
    model, _ = tiny_model(family, texts=TEXTS, vocabulary=PLAN.vocabulary, **options)
    _shake(model, noise, drawn)
    return model


def _loud(fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """`fields` with a language model of large weights and grouped keys, where it does not bring its own."""
    own = fields.pop("text_config", {})
    return {**fields, "text_config": {"initializer_range": 0.3, **more, **own}}


def _saved(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tiny_tokenizer(markers: bool = True) -> PreTrainedTokenizerFast:
    """In the manner of Llama's, with M2F2-Det's placeholders as the last two ids."""
    if markers:
        return families.m2f2_det_tokenizer(PLAN)
    tokenizer = llama_tokenizer(TEXTS, PLAN.vocabulary)
    tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def m2f2_det(variant: str = "cosine", seed: int = 0, **config: Any) -> Any:
    return _tiny("m2f2_det", 0.05, {}, seed=seed, variant=variant, **config)


def m2f2_det_config(variant: str = "cosine", **config: Any) -> Any:
    plan = Plan(TINY, TEXTS, PLAN.vocabulary, False, {"variant": variant, **config})
    return M2F2DetConfig(**plan.over(families.m2f2_det_fields(plan)[0]))


def verdict_processor(image_size: int = SIZE) -> VerdictProcessor:
    size, crop = {"shortest_edge": image_size}, {"height": image_size, "width": image_size}
    return VerdictProcessor(M2F2DetImageProcessor(size=size, crop_size=crop))


def tiny_m2f2_det(folder: Path, variant: str = "cosine", **config: Any) -> Path:
    return _saved(folder, m2f2_det(variant, **config), verdict_processor())


def m2f2_det_llm(seed: int = 0, **config: Any) -> Any:
    drawn = {"lm_head": 0.3, "multi_modal_projector": 0.3, "classifier.weight": 0.5}
    return _tiny("m2f2_det", 0.0, drawn, generates=True, seed=seed, **_loud(config, num_key_value_heads=2))


def m2f2_det_processor(image_size: int = SIZE, patch_size: int = PATCH, **options: Any) -> M2F2DetProcessor:
    image_processor = verdict_processor(image_size).image_processor
    patches = (image_size // patch_size) ** 2
    return M2F2DetProcessor(image_processor, tiny_tokenizer(), image_seq_length=patches, **options)


def tiny_m2f2_det_llm(folder: Path, **config: Any) -> Path:
    return _saved(folder, m2f2_det_llm(**config), m2f2_det_processor())


def fakevlm_tokenizer(vocabulary: int = PLAN.vocabulary) -> PreTrainedTokenizerFast:
    return families.fakevlm_tokenizer(Plan(TINY, TEXTS, vocabulary, True, {}))


def fakevlm(seed: int = 0, prompt_style: str = "raw", **config: Any) -> Any:
    rows = -(-len(fakevlm_tokenizer()) // 64) * 64  # as published ones, whose table is longer than their vocabulary
    drawn = {"lm_head": 0.1, "multi_modal_projector": 0.5}
    fields = _loud(config, num_key_value_heads=2, vocab_size=rows)
    return _tiny("fakevlm", 0.0, drawn, seed=seed, prompt_style=prompt_style, **fields)


def fakevlm_config(**config: Any) -> Any:
    """What a fresh model has: no verdict tokens yet."""
    found = fakevlm(**config).config
    found.verdict_tokens = None
    return found


def fakevlm_processor(**options: Any) -> FakeVLMProcessor:
    return FakeVLMProcessor(
        FakeVLMImageProcessor(**TINY.picture), fakevlm_tokenizer(), **{"patch_size": PATCH, **options}
    )


def tiny_fakevlm(folder: Path, prompt_style: str = "raw", **config: Any) -> Path:
    return _saved(folder, fakevlm(prompt_style=prompt_style, **config), fakevlm_processor(prompt_style=prompt_style))


def lvlm_tokenizer() -> PreTrainedTokenizerFast:
    return families.lvlm_dfd_tokenizer(PLAN)


def lvlm_dfd(seed: int = 0, **config: Any) -> Any:
    return _tiny("lvlm_dfd", 0.1, {}, seed=seed, **_lvlm_fields(config))


def lvlm_dfd_llm(seed: int = 0, **config: Any) -> Any:
    # As Vicuna 16k, whose positions are stretched.
    stretched = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    fields = _loud(_lvlm_fields(config), rope_parameters=stretched, initializer_range=0.2)
    return _tiny("lvlm_dfd", 0.1, {}, generates=True, seed=seed, **fields)


def lvlm_dfd_config(**config: Any) -> Any:
    return tiny_model("lvlm_dfd", **_lvlm_fields(config))[0].config


def _lvlm_fields(config: dict[str, Any]) -> dict[str, Any]:
    # The cosines of random features are far apart already.
    loud = {"imagebind_config": {"initializer_range": 0.3}, "map_scale": 5.0, "tap_layers": [0, 2]}
    return {**loud, "num_prompt_tokens": 5, "stop_token_id": STOP, **config}


def lvlm_image_processor(**options: Any) -> LvlmDfdImageProcessor:
    return LvlmDfdImageProcessor(size={"height": SIZE, "width": SIZE}, **options)


def lvlm_verdict_processor(**options: Any) -> VerdictProcessor:
    return VerdictProcessor(lvlm_image_processor(**options))


def lvlm_dfd_processor(**options: Any) -> LvlmDfdProcessor:
    return LvlmDfdProcessor(lvlm_image_processor(), lvlm_tokenizer(), **{"stop_token_id": STOP, **options})


def tiny_lvlm_dfd(folder: Path, crop_mode: str = "squash", **config: Any) -> Path:
    return _saved(folder, lvlm_dfd(**config), lvlm_verdict_processor(crop_mode=crop_mode))


def tiny_lvlm_dfd_llm(folder: Path, **config: Any) -> Path:
    return _saved(folder, lvlm_dfd_llm(**config), lvlm_dfd_processor())


def llm_tokenizer(legacy: bool = True) -> PreTrainedTokenizerFast:
    """In the manner of Llama's; without `legacy` in its newer form, which trips the learned word."""
    tokenizer, _ = families.antifakeprompt_tokenizers(PLAN)
    if not legacy:
        backend = tokenizer.backend_tokenizer
        backend.normalizer = None
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def qformer_tokenizer() -> PreTrainedTokenizerFast:
    return families.antifakeprompt_tokenizers(PLAN)[1]


# The Q-Former is narrower than the tower, as in the released model.
LOUD_INSTRUCTBLIP = {
    "vision_config": {"initializer_range": 0.1},
    "qformer_config": {"initializer_range": 0.2, "hidden_size": 24, "intermediate_size": 40},
    "text_config": {"initializer_range": 0.2, "num_key_value_heads": 2},
}
DRAWN_INSTRUCTBLIP = {"query_tokens": 0.5, "language_projection.weight": 0.5, "soft_word": 0.5}


def instructblip_fields() -> dict[str, Any]:
    """Config fields of an InstructBLIP whose tables end before every added token."""
    fields = families.instructblip_fields(TINY, len(llm_tokenizer()), len(qformer_tokenizer()))
    return laid_over(fields, LOUD_INSTRUCTBLIP)


def antifakeprompt(seed: int = 0, **config: Any) -> Any:
    return _tiny("antifakeprompt", 0.05, DRAWN_INSTRUCTBLIP, seed=seed, **{**LOUD_INSTRUCTBLIP, **config})


def antifakeprompt_processor(**options: Any) -> AntifakePromptProcessor:
    tokenizer, question = llm_tokenizer(), qformer_tokenizer()
    add_soft_word(tokenizer, question)
    image_processor = AntifakePromptImageProcessor(**TINY.picture)
    return AntifakePromptProcessor(image_processor, tokenizer, question, num_query_tokens=QUERIES, **options)


def tiny_antifakeprompt(folder: Path, **config: Any) -> Path:
    return _saved(folder, antifakeprompt(**config), antifakeprompt_processor())


# What a model is asked, and says, that learns from FakeClue.
SENTENCES = {
    "question": "Does the image looks real/fake?",
    "answers": {"real": ["This is a real image"], "fake": ["This is a fake image"]},
    "explanation_question": None,
}


def chat_vlm(architecture: str = "qwen3_vl", seed: int = 0, **config: Any) -> tuple[Any, Any]:
    """A chat model as a detector, and its processor."""
    own = {"model_type": architecture}
    model, processor = tiny_model(
        "chat_vlm", texts=TEXTS, vocabulary=PLAN.vocabulary, seed=seed, vlm_config=own, **config
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(6)
    return model, processor


def tiny_chat_vlm(folder: Path, architecture: str = "qwen3_vl", **config: Any) -> Path:
    return _saved(folder, *chat_vlm(architecture, **config))


def tiny_instructblip(folder: Path, seed: int = 0) -> Path:
    """Save a stock InstructBLIP with a stock processor to `folder`."""
    tokenizer, question = llm_tokenizer(), qformer_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    processor = InstructBlipProcessor(BlipImageProcessor(), tokenizer, question, num_query_tokens=QUERIES)
    torch.manual_seed(seed)
    fields = instructblip_fields()
    # as the published ones, whose table has rows for the added tokens
    fields["text_config"]["vocab_size"] = len(tokenizer) + 8
    config = InstructBlipConfig(**fields, image_token_index=tokenizer.convert_tokens_to_ids("<image>"))
    model = InstructBlipForConditionalGeneration(config)
    _shake(model, 0.05, DRAWN_INSTRUCTBLIP)
    return _saved(folder, model.eval(), processor)
