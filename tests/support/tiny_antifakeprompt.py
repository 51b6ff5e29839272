"""A tiny random AntifakePrompt, the stock InstructBLIP below it, and tokenizers trained on a few sentences."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedTokenizerFast,
)

from deepfake_detectors.modeling.configuration_antifakeprompt import AntifakePromptConfig
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from deepfake_detectors.modeling.processing_antifakeprompt import AntifakePromptProcessor, add_soft_word

IMAGE_SIZE, QUERIES = 56, 4
SENTENCES = [
    "Is this photo real? yes no not sure yes no",
    "Explain why this photo looks real. Explain why this photo looks fake.",
    "What about the eyes? The eyes look odd.",
]
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def llm_tokenizer(legacy: bool = True) -> PreTrainedTokenizerFast:
    """Byte-fallback BPE in the manner of Llama's; without `legacy` as its newer form, which trips the learned word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = {word.strip(".?") for sentence in SENTENCES for word in sentence.split()}
    special = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special[:3], show_progress=False)
    tokenizer.train_from_iterator([*sorted(words), "?", "."] * 2, trainer)
    tokenizer.add_tokens(special[3:])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def qformer_tokenizer() -> PreTrainedTokenizerFast:
    """BERT's manner: lower case, whole words."""
    words = sorted({word for sentence in SENTENCES for word in sentence.lower().replace("?", " ?").split()} | {"."})
    vocabulary = {word: i for i, word in enumerate([*BERT_SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def antifakeprompt_processor(**options: Any) -> AntifakePromptProcessor:
    tokenizer, question = llm_tokenizer(), qformer_tokenizer()
    add_soft_word(tokenizer, question)
    image_processor = AntifakePromptImageProcessor(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )
    return AntifakePromptProcessor(image_processor, tokenizer, question, num_query_tokens=QUERIES, **options)


def instructblip_fields() -> dict[str, Any]:
    """Sub-configs whose tables end before every added token."""
    return {
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": 14,
            "initializer_range": 0.1,
        },
        "qformer_config": {
            "vocab_size": len(qformer_tokenizer()),
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 48,
            "initializer_range": 0.2,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": len(llm_tokenizer()),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "initializer_range": 0.2,
        },
        "num_query_tokens": QUERIES,
    }


def _shake(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
        model.query_tokens.normal_(0, 0.5)
        model.language_projection.weight.normal_(0, 0.5)


def antifakeprompt(seed: int = 0, **overrides: Any) -> AntifakePromptForDeepfakeDetection:
    """A tiny model in eval mode with random weights, biases and norms too."""
    names = ("prompt", "plain_prompt", "soft_word_sides", "candidates")
    fields = antifakeprompt_processor(**{n: overrides[n] for n in names if n in overrides}).prompt_fields()
    torch.manual_seed(seed)
    model = AntifakePromptForDeepfakeDetection(
        AntifakePromptConfig(**instructblip_fields(), **{**fields, **overrides})
    )
    _shake(model)
    with torch.no_grad():
        for word in model.soft_words().values():
            word.normal_(0, 0.5)
    return model.eval()


def tiny_antifakeprompt(folder: Path, **overrides: Any) -> Path:
    """Save a tiny model and its processor to `folder`."""
    antifakeprompt(**overrides).save_pretrained(folder)
    antifakeprompt_processor().save_pretrained(folder)
    return folder


def tiny_instructblip(folder: Path, seed: int = 0) -> Path:
    """Save a stock InstructBLIP with a stock processor to `folder`."""
    tokenizer, question = llm_tokenizer(), qformer_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    processor = InstructBlipProcessor(BlipImageProcessor(), tokenizer, question, num_query_tokens=QUERIES)
    torch.manual_seed(seed)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    fields = instructblip_fields()
    # as the published ones, whose table has rows for the added tokens
    fields["text_config"]["vocab_size"] = len(tokenizer) + 8
    model = InstructBlipForConditionalGeneration(InstructBlipConfig(**fields, image_token_index=image_token))
    _shake(model)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
