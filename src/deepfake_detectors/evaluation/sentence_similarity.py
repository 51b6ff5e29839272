"""Closeness in meaning: the cosine of sentence embeddings, by any encoder of the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["SUGGESTED_ENCODER", "SentenceEncoder", "sentence_similarities"]

# FakeVLM's paper gives a "CSS" without naming its encoder; this one is the usual choice, so no parity is claimed.
SUGGESTED_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
BATCH = 64


class SentenceEncoder:
    """Mean of the last hidden states over the tokens of a text, at length 1, as sentence-transformers' models use.

    Args:
        name: folder or Hub id of an encoder with its tokenizer.

    Raises:
        ValueError: naming it, if it cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.model = AutoModel.from_pretrained(name).eval()
        except (OSError, ValueError, ImportError) as error:
            first = " ".join(str(error).split())
            raise ValueError(
                f"the sentence encoder {name!r} could not be loaded: {first} Without network, fetch it before "
                f"(hf download {SUGGESTED_ENCODER}), or give the folder of an encoder."
            ) from error
        self.name = name
        # Some tokenizers do not say how much their model reads; two positions are for those that count from 2.
        positions = getattr(self.model.config, "max_position_embeddings", self.tokenizer.model_max_length + 2) - 2
        self.longest = min(self.tokenizer.model_max_length, positions)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float64 `(texts, width)`, each row of length 1 (of zeros for a text without tokens)."""
        rows = []
        for start in range(0, len(texts), BATCH):
            inputs: Any = self.tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=self.longest,
                return_tensors="pt",
            )
            states = self.model(**inputs).last_hidden_state.double()
            kept = inputs["attention_mask"][..., None].double()
            rows.append((states * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1.0))
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1).numpy()


def sentence_similarities(
    encoder: SentenceEncoder, texts: Sequence[str], references: Sequence[Sequence[str]]
) -> np.ndarray:
    """Cosine in [-1, 1] of each text with the closest of its references; float64 `(n,)`."""
    said = encoder.encode(texts)
    flat = encoder.encode([reference for several in references for reference in several])
    result, start = np.empty(len(texts)), 0
    for place, several in enumerate(references):
        result[place] = (flat[start : start + len(several)] @ said[place]).max()
        start += len(several)
    return result
