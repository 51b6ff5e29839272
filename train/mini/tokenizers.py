"""Tokenizers trained on a few texts, of the kinds that the families' processors expect."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from deepfake_detectors.modeling.processing_lvlm_dfd import ANSWER_END

__all__ = ["bert_tokenizer", "byte_level_tokenizer", "llama_tokenizer", "stop_token"]

LINE_BREAKS = ("<0x0A>", "\n")  # as a byte, and as a token of its own
SPECIAL = ["<unk>", "<s>", "</s>"]  # Llama's first three ids
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]  # and the 256 bytes after them, for anything without a token
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def llama_tokenizer(
    texts: Iterable[str], vocabulary: int, added: Sequence[str] = (), named: Mapping[str, str] | None = None
) -> PreTrainedTokenizerFast:
    """Train a Llama-style byte-fallback BPE: tokens do not cross spaces, digits and punctuation are separate.

    Args:
        texts: texts to learn from.
        vocabulary: maximum number of ids, including the 259 special ones, without `added`.
        added: placeholders such as `<image>`, which get the last ids.
        named: those that the tokenizer has as attributes, such as `{"image_token": "<image>"}`.

    Raises:
        ValueError: if the vocabulary does not have room for any word token.
    """
    room = vocabulary - len(SPECIAL) - len(BYTES)
    if room < 1:
        raise ValueError(
            f"vocabulary is {vocabulary}, but {len(SPECIAL) + len(BYTES)} ids are needed for special tokens and "
            "bytes; use 1000 or more."
        )
    learner = Tokenizer(models.BPE())
    learner.normalizer = _blanks()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="never"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(behavior="contiguous"),
        ]
    )
    # Line by line, so that the line break does not get a token and stays a byte, as in Llama's tokenizer.
    lines = (line for text in texts for line in text.splitlines() if line.strip())
    learner.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=room, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].__getitem__)

    # The pre-tokenizer was only needed for learning: merges across its borders do not exist.
    ids = {piece: number for number, piece in enumerate([*SPECIAL, *BYTES, *pieces])}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = _blanks()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    attributes = {"extra_special_tokens": dict(named)} if named else {}
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **attributes
    )
    if added:
        wrapped.add_tokens(list(added), special_tokens=True)
    return wrapped


def byte_level_tokenizer(
    texts: Iterable[str],
    vocabulary: int,
    special: Sequence[str],
    eos: str,
    pad: str,
    named: Mapping[str, str] | None = None,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE like GPT-2 and Qwen: every text has tokens, and a space belongs to the next word.

    Args:
        texts: texts to learn from.
        vocabulary: maximum number of ids, including the 256 bytes, without `special`.
        special: markers, which get the last ids.
        eos, pad: which of them end a text and pad it.
        named: those that the tokenizer has as attributes, such as `{"image_token": "<|image_pad|>"}`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(list(texts), trainer)
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=eos,
        pad_token=pad,
        **({"extra_special_tokens": dict(named)} if named else {}),
    )


def _blanks() -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def bert_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Build a BERT-style tokenizer: lower case, `[CLS] ... [SEP]`, with one id for every word of `texts`."""
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    ids = {word: number for number, word in enumerate([*BERT_SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def stop_token(tokenizer: Any) -> int:
    """Return the id that ends an answer of LVLM-DFD: the token after its line break, "##" (2277) in Vicuna.

    Raises:
        ValueError: if the tokenizer does not have a token for a line break.
    """
    end = tokenizer.convert_ids_to_tokens(tokenizer(ANSWER_END, add_special_tokens=False).input_ids)
    behind = [piece for before, piece in pairwise(end) if before in LINE_BREAKS]
    if not behind:
        raise ValueError(f"The tokenizer turns {ANSWER_END!r} into {end}: it does not have a token for a line break.")
    return tokenizer.convert_tokens_to_ids(behind[0])
