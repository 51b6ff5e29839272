"""How likely a language model finds given answers, from one prefill of what stands before them."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

__all__ = ["candidate_nll", "next_token_logits"]


def next_token_logits(
    language_model: Any,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor,
    past_key_values: Any = None,
) -> torch.Tensor:
    """Logits behind the last real position of each row, the only ones that are computed.

    Args:
        language_model: a decoder with a head.
        inputs_embeds: (batch, length, hidden).
        attention_mask: (batch, length), padding on either side.
        past_key_values: an empty cache to fill, or `None`.

    Returns:
        (batch, vocabulary), float32.
    """
    full = bool(attention_mask.all())
    positions = attention_mask.cumsum(dim=-1) - 1
    hidden = language_model.get_decoder()(
        inputs_embeds=inputs_embeds,
        # Without padding there is no mask to apply, and the kernels' causal path is the fast one.
        attention_mask=None if full else attention_mask,
        position_ids=positions.clamp(min=0),
        past_key_values=past_key_values,
        use_cache=past_key_values is not None,
    ).last_hidden_state
    last = torch.where(attention_mask.bool(), torch.arange(hidden.shape[1], device=hidden.device), -1).amax(dim=-1)
    ends = hidden[torch.arange(len(hidden), device=hidden.device), last.to(hidden.device)]
    return language_model.get_output_embeddings()(ends).float()


def candidate_nll(
    language_model: Any,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor,
    candidates: Sequence[Sequence[Sequence[int]]],
) -> torch.Tensor:
    """Summed negative log-likelihood of each answer. Answers of one token need no second pass.

    Args:
        language_model, inputs_embeds, attention_mask: see `next_token_logits`.
        candidates: token ids of every answer, for every row; the same number of answers in each row.

    Returns:
        (batch, answers), float32.
    """
    batch, count = len(candidates), len(candidates[0])
    longest = max(len(ids) for row in candidates for ids in row)
    cache = DynamicCache(config=language_model.config) if longest > 1 else None
    device = inputs_embeds.device
    logits = next_token_logits(language_model, inputs_embeds, attention_mask, cache).log_softmax(dim=-1)
    first = torch.tensor([[ids[0] for ids in row] for row in candidates], device=logits.device)
    nll = -logits.gather(1, first)
    if cache is None:
        return nll

    # Behind an answer that is already over stands id 0, whose value is multiplied by zero.
    flat = [list(ids) for row in candidates for ids in row]
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in flat], device=device)
    real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in flat], device=device)
    cache.batch_repeat_interleave(count)
    before = attention_mask.repeat_interleave(count, dim=0)
    lengths = before.sum(dim=-1, keepdim=True)
    outputs = language_model(
        inputs_embeds=language_model.get_input_embeddings()(ids[:, :-1]),
        attention_mask=torch.cat([before, real[:, :-1]], dim=1),
        position_ids=lengths + torch.arange(longest - 1, device=device),
        past_key_values=cache,
        use_cache=True,
    )
    tails = outputs.logits.float().log_softmax(dim=-1).gather(2, ids[:, 1:, None].to(outputs.logits.device))[..., 0]
    return nll - (tails * real[:, 1:].to(tails.device)).sum(dim=-1).view(batch, count).to(nll.device)
