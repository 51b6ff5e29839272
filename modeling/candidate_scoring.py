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
        first_logits: (batch, vocabulary) behind the prompt.
        candidates: token ids of every answer, for every row, the same number of answers in each; or a single row that
            serves all.
        read_on: called once where an answer has more than one token, with ids and mask (batch * answers, longest - 1),
            int64, answer after answer of the first row, then of the second; the mask is 0 where an answer is over.
            Returns logits (batch * answers, longest - 1, vocabulary) behind each of these tokens.
        words: how many ids of the vocabulary share the probability; all where `None`.

    Returns:
        (batch, answers), float32.
    """
    count = len(candidates[0])
    flat = [list(ids) for row in candidates for ids in row]
    longest = max(map(len, flat))
    # Not by repeating the list: an exported graph would take the number of pictures for a constant.
    shape, every = (len(candidates), count, longest), (first_logits.shape[0], -1, -1)
    # Behind an answer that is already over stands its last id, whose value is multiplied by zero.
    filled = [[*row, *[row[-1]] * (longest - len(row))] for row in flat]
    ids = torch.tensor(filled, device=first_logits.device).view(shape).expand(every)
    marked = [[1] * len(row) + [0] * (longest - len(row)) for row in flat]
    real = torch.tensor(marked, device=first_logits.device).view(shape).expand(every)
    first = first_logits[..., :words].float().log_softmax(-1)
    found = first.gather(1, ids[..., 0])
    if longest > 1:
        logits = read_on(ids[..., :-1].flatten(0, 1), real[..., :-1].flatten(0, 1))[..., :words].float()
        following = ids[..., 1:].flatten(0, 1)[..., None].to(logits.device)
        tails = logits.log_softmax(-1).gather(2, following)[..., 0].to(first_logits.device)
        found = found + (tails.unflatten(0, (-1, count)) * real[..., 1:]).sum(-1)
    return found


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
