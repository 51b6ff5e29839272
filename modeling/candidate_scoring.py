"""Probabilities of several candidate answers: one implementation for every family that compares answers.

The prompt is read once. If the answers differ in their first token, its logits decide. Otherwise one more pass reads
the remaining tokens of all answers for all images, on copies of the prompt's cache. transformers' own
`pipeline("decision")` only compares single-token labels and has its own prompt format, so it supports neither longer
answers nor the prompts of these families.
"""

from collections.abc import Callable, Sequence

import torch

__all__ = ["candidate_log_probabilities", "class_log_probabilities", "prefix_free"]


def candidate_log_probabilities(
    first_logits: torch.Tensor,
    candidates: Sequence[Sequence[Sequence[int]]],
    read_on: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    words: int | None = None,
) -> torch.Tensor:
    """Return the summed log-probability of each answer after its prompt.

    Args:
        first_logits: (batch, vocabulary) after the prompt.
        candidates: token ids of every answer, for every row; the same number of answers in each row.
        read_on: called once if any answer has more than one token, with ids and mask (batch * answers, longest - 1),
            int64, all answers of the first row, then of the second; the mask is 0 after the end of an answer. Returns
            logits (batch * answers, longest - 1, vocabulary) after each of these tokens.
        words: number of vocabulary ids over which to normalise; `None` means all.

    Returns:
        (batch, answers), float32.
    """
    batch, count = len(candidates), len(candidates[0])
    flat = [list(ids) for row in candidates for ids in row]
    longest = max(map(len, flat))
    device = first_logits.device
    # Answers that have ended repeat their last id, whose value is multiplied by zero.
    ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in flat], device=device)
    real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in flat], device=device)
    first = first_logits[..., :words].float().log_softmax(-1)
    found = first.gather(1, ids[:, 0].view(batch, count)).flatten()
    if longest > 1:
        logits = read_on(ids[:, :-1], real[:, :-1])[..., :words].float()
        tails = logits.log_softmax(-1).gather(2, ids[:, 1:, None].to(logits.device))[..., 0].to(device)
        found = found + (tails * real[:, 1:]).sum(-1)
    return found.view(batch, count)


def class_log_probabilities(log_probabilities: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return the log of the summed probability of each class.

    Args:
        log_probabilities: (batch, answers), the answers of the first class first.
        sizes: number of answers per class.

    Returns:
        (batch, classes).
    """
    return torch.stack([part.logsumexp(-1) for part in log_probabilities.split(list(sizes), dim=-1)], dim=-1)


def prefix_free(answers: Sequence[Sequence[int]]) -> list[list[int]]:
    """Drop answers that repeat or continue another one: the shorter answer's probability includes them."""
    kept: list[list[int]] = []
    for ids in sorted({tuple(ids) for ids in answers}, key=lambda ids: (len(ids), ids)):
        if not any(list(ids[: len(short)]) == short for short in kept):
            kept.append(list(ids))
    return kept
