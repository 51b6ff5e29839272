"""Answers that end by themselves. Random weights write on until they are stopped; trained ones do not."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

__all__ = ["PUBLISHED_LENGTHS", "stopping_after"]

# Of the 1,070 explanations that are published with M2F2-Det (`DDVQA_exp_c40.jsonl`): words in the middle of each
# eighth, the shortest first, at 1.4 tokens a word, with the end token.
PUBLISHED_LENGTHS = (7, 9, 9, 9, 9, 16, 26, 53)


class _Stop(LogitsProcessor):
    def __init__(self, lengths: Sequence[int], end: int) -> None:
        self.lengths, self.end, self.step = torch.tensor(lengths), end, 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.step += 1
        ends = (self.lengths <= self.step).to(scores.device)
        scores = scores.clone()
        scores[:, self.end] = torch.where(ends, torch.inf, -torch.inf)
        return scores


def stopping_after(lengths: Sequence[int], end: int) -> dict[str, Any]:
    """Return arguments of `generate` with which row i writes `lengths[i]` tokens, the last of them `end`."""
    return {"logits_processor": [_Stop(lengths, end)], "eos_token_id": end, "max_new_tokens": max(lengths)}
