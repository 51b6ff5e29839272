"""A tiny random FakeVLM with a tokenizer trained on its own sentences."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from deepfake_detectors.modeling.configuration_fakevlm import FakeVLMConfig
from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from deepfake_detectors.modeling.processing_fakevlm import FakeVLMProcessor
from deepfake_detectors.modeling.prompting_fakevlm import QUESTION, build_prompt

SIDE, PATCH = 56, 14
SENTENCES = [
    build_prompt(style="vicuna_v1"),
    QUESTION,
    *["This is a real image. The fur is clear and well-defined."] * 4,
    *["This is a fake image. The outlines are blurry, the eyes look unnatural."] * 4,
]


def tiny_tokenizer(vocabulary: int = 420) -> PreTrainedTokenizerFast:
    """Byte-fallback BPE in the manner of Llama's tokenizer; `<image>` and `<pad>` are the last two ids."""
    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    # Words do not merge with each other; only in training, as Llama has no pre-tokenizer.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[*special, *[f"<0x{byte:02X}>" for byte in range(256)]]
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.pre_tokenizer = None
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    wrapped.add_tokens(["<image>", "<pad>"], special_tokens=True)
    wrapped.pad_token = "<pad>"
    return wrapped


def fakevlm_config(**overrides: Any) -> FakeVLMConfig:
    tokenizer = tiny_tokenizer()
    settings: dict[str, Any] = {
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.3,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
    }
    return FakeVLMConfig(**{**settings, **overrides})


def fakevlm(seed: int = 0, **overrides: Any) -> FakeVLMForDeepfakeDetection:
    """A tiny model in eval mode with random weights that knows its verdict tokens."""
    torch.manual_seed(seed)
    model = FakeVLMForDeepfakeDetection(fakevlm_config(**overrides))
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.1)
        # what comes before an answer must show in it
        for weight in model.model.multi_modal_projector.parameters():
            weight.normal_(0, 0.5)
    model.set_verdict_tokens(tiny_tokenizer())
    model.generation_config.pad_token_id = model.config.text_config.pad_token_id
    return model.eval()


def fakevlm_processor(**options: Any) -> FakeVLMProcessor:
    image_processor = FakeVLMImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return FakeVLMProcessor(image_processor, tiny_tokenizer(), patch_size=PATCH, **options)


def tiny_fakevlm(folder: Path, prompt_style: str = "raw", **overrides: Any) -> Path:
    """Save a tiny model and its processor to `folder`."""
    fakevlm(prompt_style=prompt_style, **overrides).save_pretrained(folder)
    fakevlm_processor(prompt_style=prompt_style).save_pretrained(folder)
    return folder
