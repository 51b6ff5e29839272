"""A tiny random M2F2-Det with language model, and a tokenizer trained on a few sentences."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.prompting_m2f2_det import judgement_prompt, training_prompt
from support.tiny_models import m2f2_det_config, verdict_processor

SENTENCES = [
    judgement_prompt(),
    training_prompt([{"from": "human", "value": "Is it real?"}, {"from": "gpt", "value": "The image is fake."}])[0],
    "The skin is overly smooth. The eyes look unnaturally asymmetric. The nose lacks detail. It looks real or fake.",
]


def tiny_tokenizer(markers: bool = True) -> PreTrainedTokenizerFast:
    """Byte-fallback BPE in the manner of Llama's tokenizer, with both placeholders as the last two ids."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=special[:3], initial_alphabet=[])
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_tokens(special[3:])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    if markers:
        wrapped.add_tokens(["<image>", "<deepfake>"], special_tokens=True)
    return wrapped


def m2f2_det_llm(seed: int = 0, **overrides: Any) -> M2F2DetForConditionalGeneration:
    """A tiny model in eval mode with random weights."""
    torch.manual_seed(seed)
    text_config = {
        "model_type": "llama",
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
    }
    model = M2F2DetForConditionalGeneration(m2f2_det_config(text_config=text_config, **overrides))
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.3)
        for weight in model.model.multi_modal_projector.parameters():
            weight.normal_(0, 0.3)
        # the verdict must differ between pictures by more than rounding
        model.model.detector.classifier.weight.normal_(0, 0.5)
    return model.eval()


def m2f2_det_processor(image_size: int = 56, patch_size: int = 14, **options: Any) -> M2F2DetProcessor:
    return M2F2DetProcessor(
        verdict_processor(image_size).image_processor,
        tiny_tokenizer(),
        image_seq_length=(image_size // patch_size) ** 2,
        **options,
    )


def tiny_m2f2_det_llm(folder: Path, **overrides: Any) -> Path:
    """Save a tiny explaining model and its processor to `folder`."""
    m2f2_det_llm(**overrides).save_pretrained(folder)
    m2f2_det_processor().save_pretrained(folder)
    return folder
