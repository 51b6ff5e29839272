"""Tokenizers trained on a few texts, in the forms that the families' processors expect."""

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

LINE_BREAKS = ("<0x0A>", "\n")  # as a byte, and as a piece of its own
SPECIAL = ["<unk>", "<s>", "</s>"]  # Llama's first three ids
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]  # and the 256 behind them, for what has no token of its own
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def llama_tokenizer(
    texts: Iterable[str], vocabulary: int, added: Sequence[str] = (), named: Mapping[str, str] | None = None
) -> PreTrainedTokenizerFast:
    """Byte-fallback BPE in the manner of Llama's: no word piece crosses a blank, digits and punctuation stay apart.

    Args:
        texts: to learn from.
        vocabulary: at most so many ids, the 259 special ones included, without `added`.
        added: placeholders such as `<image>`, which get the last ids.
        named: those of them that the tokenizer has as attributes, such as `{"image_token": "<image>"}`.

    Raises:
        ValueError: if the vocabulary has no room for a single word piece.
    """
    room = vocabulary - len(SPECIAL) - len(BYTES)
    if room < 1:
        raise ValueError(
            f"vocabulary is {vocabulary}, but {len(SPECIAL) + len(BYTES)} ids go to special tokens and bytes; "
            "1000 or more make sense."
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
    # Line by line, so that the line break has no piece and stays the byte that it is in Llama's tokenizer.
    lines = (line for text in texts for line in text.splitlines() if line.strip())
    learner.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=room, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].__getitem__)

    # The pre-tokenizer was needed for learning only: what was never merged across a border never will be.
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
    """Byte-level BPE in the manner of GPT-2 and Qwen: every text has tokens, none is added, a blank leads its word.

    Args:
        texts: to learn from.
        vocabulary: at most so many ids, the 256 bytes included, without `special`.
        special: markers, which get the last ids.
        eos, pad: which of them end a text and fill up.
        named: those of them that the tokenizer has as attributes, such as `{"image_token": "<|image_pad|>"}`.
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
    """In the manner of BERT's: lower case, `[CLS] ... [SEP]`, with every word of `texts` as one id."""
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
    """Return the id at which an answer of LVLM-DFD ends: the piece behind its line break, "##" (2277) in Vicuna's.

    Raises:
        ValueError: if the tokenizer has no piece for a line break.
    """
    end = tokenizer.convert_ids_to_tokens(tokenizer(ANSWER_END, add_special_tokens=False).input_ids)
    behind = [piece for before, piece in pairwise(end) if before in LINE_BREAKS]
    if not behind:
        raise ValueError(f"The tokenizer makes {end} of {ANSWER_END!r}: no piece stands for a line break.")
    return tokenizer.convert_tokens_to_ids(behind[0])
