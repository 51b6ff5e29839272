"""The bridge adapter of M2F2-Det's stage-1 detector.

Three small transformer blocks read CNN maps and CLIP tokens, level by level. In the released code they are followed by
a LayerNorm over a single element, which always returns its bias. The whole adapter is therefore one constant vector
(see `bridge_norm`).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_m2f2_det import M2F2DetConfig

__all__ = ["M2F2DetBridge", "M2F2DetBridgeBlock"]


class _CastLinear(nn.Linear):
    """A linear layer that computes in another dtype than that of its weights."""

    # The weights are used inside the layer's own call, because accelerate loads offloaded weights only for that.
    def forward(self, input: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return F.linear(input.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


class _ScoreNorm(nn.LayerNorm):
    """One scale and one shift for all tokens."""

    def forward(self, scores: torch.Tensor, mode: str) -> torch.Tensor:
        """Normalise scores (batch, tokens): each by itself (`"official"`, giving the shift), or over tokens."""
        if mode == "official":
            return super().forward(scores.unsqueeze(-1).to(self.weight.dtype)).squeeze(-1)
        return F.layer_norm(scores, scores.shape[-1:], eps=self.eps) * self.weight + self.bias


class M2F2DetBridgeBlock(nn.Module):
    """Post-norm transformer block over (sequences, length, `bridge_dim`); one fused q/k/v projection."""

    def __init__(self, config: M2F2DetConfig) -> None:
        super().__init__()
        dim = config.bridge_dim
        self.num_heads = config.bridge_num_heads
        self.attention_dtype = getattr(torch, config.bridge_attention_dtype)
        self.qkv_proj = _CastLinear(dim, 3 * dim)
        self.out_proj = _CastLinear(dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.bridge_intermediate_size)
        self.fc2 = nn.Linear(config.bridge_intermediate_size, dim)
        self.dropout = nn.Dropout(config.bridge_dropout)

    def attention(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # The official code runs the whole attention module in bfloat16 and casts back.
        dtype = hidden_states.dtype if self.attention_dtype == torch.float32 else self.attention_dtype
        sequences, length, dim = hidden_states.shape
        fused = self.qkv_proj(hidden_states, dtype)
        query, key, value = (
            fused.view(sequences, length, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(sequences, length, dim)
        mixed = self.out_proj(mixed, dtype)
        return mixed.to(hidden_states.dtype)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform (sequences, length, dim), keeping the shape."""
        hidden_states = self.norm1(hidden_states + self.dropout(self.attention(hidden_states)))
        feed_forward = self.fc2(self.dropout(F.relu(self.fc1(hidden_states))))
        return self.norm2(hidden_states + self.dropout(feed_forward))


class M2F2DetBridge(nn.Module):
    """Reads one CNN map and one CLIP hidden state per level; returns one vector per image.

    Args:
        config: the model's config.
        tap_shapes: (1, channels, height, width) of the CNN maps, one per level.
    """

    def __init__(self, config: M2F2DetConfig, tap_shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.norm_mode = config.bridge_norm
        self.over_batch = config.bridge_attention_axis == "batch"
        self.drop_cls = config.bridge_clip_tokens == "drop_cls"
        # Each level appends the tokens of its CNN map and all image tokens but one (CLS is kept, a patch is dropped).
        self.num_tokens = sum(shape[2] * shape[3] + config.num_patches for shape in tap_shapes)
        self.encoder_projs = nn.ModuleList(nn.Linear(shape[1], config.bridge_dim) for shape in tap_shapes)
        self.vision_proj = nn.Linear(config.vision_config.hidden_size, config.bridge_dim)
        self.blocks = nn.ModuleList(M2F2DetBridgeBlock(config) for _ in tap_shapes)
        self.score = nn.Linear(config.bridge_dim, 1)
        self.score_norm = _ScoreNorm(1)
        self.reduction = nn.Linear(self.num_tokens, config.bridge_adapter_dim)
        self.reduction_norm = nn.LayerNorm(config.bridge_adapter_dim)

    def constant(self, device: torch.device) -> torch.Tensor:
        """Return the constant output of the adapter under `bridge_norm="official"`: (1, `bridge_adapter_dim`)."""
        return self._reduced(self.score_norm(torch.zeros(1, self.num_tokens, device=device), "official"))

    def forward(self, encoder_maps: Sequence[torch.Tensor], vision_states: Sequence[torch.Tensor]) -> torch.Tensor:
        """
        Args:
            encoder_maps: (batch, channels, height, width), one per level.
            vision_states: (batch, 1 + patches, vision width), one per level, CLS first.

        Returns:
            (batch, `bridge_adapter_dim`).
        """
        tokens: list[torch.Tensor] = []
        for block, project, feature_map, state in zip(
            self.blocks, self.encoder_projs, encoder_maps, vision_states, strict=True
        ):
            state = state[:, 1:] if self.drop_cls else state[:, :-1]
            level = [project(feature_map.flatten(2).transpose(1, 2)), self.vision_proj(state)]
            sequence = torch.cat([*tokens, *level], dim=1)
            if self.over_batch:  # attention across the images of the batch, one sequence per token
                sequence = block(sequence.transpose(0, 1)).transpose(0, 1)
            else:
                sequence = block(sequence)
            tokens = [sequence]
        scores = self.score(tokens[0]).squeeze(-1)
        return self._reduced(scores if self.norm_mode == "none" else self.score_norm(scores, self.norm_mode))

    def _reduced(self, scores: torch.Tensor) -> torch.Tensor:
        """Project scores (batch, tokens) to (batch, `bridge_adapter_dim`)."""
        return self.reduction_norm(self.reduction(scores))
