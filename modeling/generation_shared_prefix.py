"""Several prompts that begin alike: the common part is prefilled once."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

__all__ = ["common_prefix_length", "generate_from_shared_prefix"]


def common_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common beginning, but at least one token shorter than the shortest row."""
    limit = min(len(row) for row in rows) - 1
    for position in range(limit):
        if any(row[position] != rows[0][position] for row in rows):
            return position
    return limit


def generate_from_shared_prefix(
    model: Any,
    rows: Sequence[Sequence[int]],
    picture_inputs: dict[str, torch.Tensor],
    pad_token_id: int,
    **generation: Any,
) -> torch.LongTensor:
    """`model.generate` for prompts on one picture, whose placeholders lie in their common beginning.

    Args:
        model: a generator whose `base_model_prefix` backbone takes `input_ids`, `past_key_values` and
            `picture_inputs`.
        rows: token ids of each prompt.
        picture_inputs: inputs of the one picture, read in the prefill of the common beginning.
        pad_token_id: fills up shorter prompts between the common beginning and their own part.
        generation: arguments of `generate`.

    Returns:
        (prompts, new tokens), right-padded by `generate`.
    """
    for name in ("num_beams", "num_return_sequences"):
        if generation.get(name, 1) > 1:
            raise ValueError(f"{name}={generation[name]} cannot share a prefill; ask with generate, or use {name}=1.")
    shared = common_prefix_length(rows)
    cache = DynamicCache(config=model.config.get_text_config())
    prefix = torch.tensor([rows[0][:shared]], device=model.device)
    model.base_model(input_ids=prefix, past_key_values=cache, use_cache=True, **picture_inputs)
    cache.batch_repeat_interleave(len(rows))

    longest = max(len(row) for row in rows)
    # Padding stands after the cached part, so that the cached keys keep their positions.
    padded = [[*row[:shared], *[pad_token_id] * (longest - len(row)), *row[shared:]] for row in rows]
    seen = [[*[1] * shared, *[0] * (longest - len(row)), *[1] * (len(row) - shared)] for row in rows]
    return model.generate(
        input_ids=torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(seen, device=model.device),
        past_key_values=cache,
        pad_token_id=pad_token_id,
        # Whatever the folder says: Trainer leaves use_cache=False in what it saves, and without it the whole prompt
        # would be fed again behind its own cache.
        **{**generation, "use_cache": True},
    )[:, longest:]
