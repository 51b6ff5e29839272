"""The tokenizer of a LLaVA checkpoint, with the two tokens that transformers needs on top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = ["read_tokenizer", "with_markers"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
IMAGE, PAD = "<image>", "<pad>"


def read_tokenizer(sources: Sequence[Path]) -> PreTrainedTokenizerBase:
    """The tokenizer among the sources: a folder's, or a bare `tokenizer.json` (then with Llama's special tokens).

    Raises:
        ValueError: if there is none, or if it lacks Llama's special tokens.
    """
    for source in sources:
        if source.is_dir() and (source / "tokenizer_config.json").exists():
            return AutoTokenizer.from_pretrained(source)
        alone = source / "tokenizer.json" if source.is_dir() else source
        if alone.name.endswith(".json") and alone.name != "config.json" and alone.is_file():
            backend = Tokenizer.from_file(str(alone))
            absent = [token for token in LLAMA_TOKENS.values() if token not in backend.get_vocab()]
            if absent:
                raise ValueError(f"{alone} is no Llama tokenizer: it lacks {', '.join(absent)}.")
            return PreTrainedTokenizerFast(tokenizer_object=backend, **LLAMA_TOKENS)
    raise ValueError(
        f"No tokenizer ({', '.join(TOKENIZER_FILES)}) among the sources: add --source FOLDER that holds it, with its "
        "tokenizer_config.json."
    )


def with_markers(tokenizer: PreTrainedTokenizerBase, words: int) -> tuple[int, int]:
    """Add `<image>` and `<pad>` as the first ids behind `words`, the rows of the model; give their ids.

    A tokenizer that has them already keeps them; one that is shorter than the model is filled up first, so that no
    trained row changes its meaning.

    Raises:
        ValueError: if the tokenizer has other words than the checkpoint has rows for, or has its markers in the middle
            of them: then it belongs to another checkpoint.
    """
    vocabulary = tokenizer.get_vocab()
    rowless = sorted(token for token, index in vocabulary.items() if index >= words and token not in (IMAGE, PAD))
    if rowless:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but the checkpoint has {words} rows (none for "
            f"{', '.join(rowless[:4])}): they do not belong together."
        )
    for marker in (IMAGE, PAD):
        if vocabulary.get(marker, words) < words:
            raise ValueError(
                f"The tokenizer's {marker} has id {vocabulary[marker]}, a word of this checkpoint (of {words} rows): "
                "they do not belong together."
            )
    if IMAGE not in vocabulary:
        tokenizer.add_tokens([f"<unused{index}>" for index in range(len(tokenizer), words)])
        tokenizer.add_tokens([IMAGE], special_tokens=True)
    if PAD not in vocabulary:
        tokenizer.add_tokens([PAD], special_tokens=True)
    tokenizer.pad_token = PAD
    return tokenizer.convert_tokens_to_ids(IMAGE), tokenizer.convert_tokens_to_ids(PAD)
