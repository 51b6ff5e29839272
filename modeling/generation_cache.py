"""Reuse of the key-value cache: one prefill for several prompts or several answers."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from .candidate_scoring import candidate_log_probabilities

__all__ = [
    "CACHE_NAME",
    "RoomyLayer",
    "cache_keyword",
    "cache_of",
    "candidate_nll",
    "common_prefix_length",
    "generate_from_shared_prefix",
    "next_token_logits",
    "one_cache",
    "roomy_cache",
]

# transformers 5.24 renamed `past_key_values` to `cache`, in every `forward` and in every output. We check for the name
# instead of the version, so that this file works with both.
CACHE_NAME = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"


def cache_keyword(cache: Cache | None) -> dict[str, Cache | None]:
    """Return `cache` under the name that the installed transformers uses in models and outputs."""
    return {CACHE_NAME: cache}


def cache_of(output: Any) -> Cache | None:
    """Return the cache from the output of a library model, or `None`."""
    return getattr(output, CACHE_NAME)


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """Return the cache that was passed to `forward` under either name.

    Raises:
        ValueError: if both are given.
    """
    if cache is not None and past_key_values is not None:
        raise ValueError("cache and past_key_values are two names for the same argument; pass only one of them.")
    return past_key_values if cache is None else cache


class RoomyLayer(DynamicLayer):
    """Cache layer that reserves room for tokens to come, so that a step copies its own tokens only.

    `DynamicLayer` copies everything for each token. `keys` and `values` are views of the reserved tensors; whatever
    replaces them (other rows, beams) is copied into new room at the next step. Not for training: it writes in place.
    """

    ROOM = 64  # tokens

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values (batch, heads, tokens, width); return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room: dict[str, torch.Tensor] = {}
        self.keys = self._appended("keys", self.keys, key_states)
        self.values = self._appended("values", self.values, value_states)
        return self.keys, self.values

    def _appended(self, name: str, held: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        batch, heads, tokens, width = added.shape
        begin = held.shape[-2] if held.numel() else 0
        end = begin + tokens
        room = self._room.get(name)
        if room is None or end > room.shape[-2] or (begin and not _begins(held, room)):
            room = added.new_empty(batch, heads, end + self.ROOM, width)
            if begin:
                room[..., :begin, :] = held
            self._room[name] = room
        room[..., begin:end, :] = added
        return room[..., :end, :]


def _begins(view: torch.Tensor, room: torch.Tensor) -> bool:
    """Return whether `view` is the beginning of every row of `room`, in the same memory."""
    same_rows = view.shape[:2] == room.shape[:2] and view.shape[-1] == room.shape[-1]
    return same_rows and view.data_ptr() == room.data_ptr() and view.stride() == room.stride()


def roomy_cache(config: Any) -> DynamicCache:
    """Return an empty `DynamicCache` for a decoder of this config; layers that attend to all tokens have room."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def common_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """Return the length of the longest common prefix, at least one token shorter than the shortest row."""
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
    """Generate for several prompts about one image, whose placeholders are in their common prefix.

    Args:
        model: a generator whose `base_model_prefix` backbone takes `input_ids`, a cache and `picture_inputs`.
        rows: token ids of each prompt.
        picture_inputs: inputs for the image, read in the prefill of the common prefix.
        pad_token_id: pads shorter prompts between the common prefix and their own part.
        generation: arguments of `generate`.

    Returns:
        (prompts, new tokens), right-padded by `generate`.
    """
    for name in ("num_beams", "num_return_sequences"):
        if generation.get(name, 1) > 1:
            raise ValueError(
                f"{name}={generation[name]} cannot share a prefill; call generate for each prompt, or use {name}=1."
            )
    shared = common_prefix_length(rows)
    cache = DynamicCache(config=model.config.get_text_config())
    prefix = torch.tensor([rows[0][:shared]], device=model.device)
    model.base_model(input_ids=prefix, use_cache=True, **cache_keyword(cache), **picture_inputs)
    cache.batch_repeat_interleave(len(rows))

    longest = max(len(row) for row in rows)
    # Padding comes after the cached part, so that the cached keys keep their positions.
    padded = [[*row[:shared], *[pad_token_id] * (longest - len(row)), *row[shared:]] for row in rows]
    seen = [[*[1] * shared, *[0] * (longest - len(row)), *[1] * (len(row) - shared)] for row in rows]
    return model.generate(
        input_ids=torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(seen, device=model.device),
        pad_token_id=pad_token_id,
        **cache_keyword(cache),
        # Set regardless of the folder: Trainer saves use_cache=False, with which the whole prompt would be read again
        # after its own cache.
        **{**generation, "use_cache": True},
    )[:, longest:]


def next_token_logits(
    language_model: Any,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor,
    cache: Cache | None = None,
) -> torch.Tensor:
    """Return the logits after the last real position of each row; no others are computed.

    Args:
        language_model: a decoder with a head.
        inputs_embeds: (batch, length, hidden).
        attention_mask: (batch, length), padded on either side.
        cache: an empty one to fill, or `None`.

    Returns:
        (batch, vocabulary), float32.
    """
    # An exported graph must not depend on values: it applies the mask, which gives the same.
    full = not torch.compiler.is_compiling() and bool(attention_mask.all())
    positions = attention_mask.cumsum(dim=-1) - 1
    hidden = language_model.get_decoder()(
        inputs_embeds=inputs_embeds,
        # Without padding no mask is needed, and the kernels' causal path is faster.
        attention_mask=None if full else attention_mask,
        position_ids=positions.clamp(min=0),
        use_cache=cache is not None,
        **cache_keyword(cache),
    ).last_hidden_state
    last = torch.where(attention_mask.bool(), torch.arange(hidden.shape[1], device=hidden.device), -1).amax(dim=-1)
    ends = hidden[torch.arange(hidden.shape[0], device=hidden.device), last.to(hidden.device)]
    return language_model.get_output_embeddings()(ends).float()


def candidate_nll(
    language_model: Any,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor,
    candidates: Sequence[Sequence[Sequence[int]]],
) -> torch.Tensor:
    """Return the summed negative log-likelihood of each answer. Answers of one token do not need a second pass.

    Args:
        language_model, inputs_embeds, attention_mask: see `next_token_logits`.
        candidates: see `candidate_log_probabilities`.

    Returns:
        (batch, answers), float32.
    """
    count, device = len(candidates[0]), inputs_embeds.device
    longest = max(len(ids) for row in candidates for ids in row)
    cache = DynamicCache(config=language_model.config) if longest > 1 else None
    first = next_token_logits(language_model, inputs_embeds, attention_mask, cache)

    def read_on(ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        cache.batch_repeat_interleave(count)
        before = attention_mask.repeat_interleave(count, dim=0)
        return language_model(
            inputs_embeds=language_model.get_input_embeddings()(ids.to(device)),
            attention_mask=torch.cat([before, real.to(device)], dim=1),
            position_ids=before.sum(dim=-1, keepdim=True) + torch.arange(ids.shape[1], device=device),
            use_cache=True,
            **cache_keyword(cache),
        ).logits

    return -candidate_log_probabilities(first, candidates, read_on)
