"""M2F2-Det's learned text prompt: free vectors through CLIP's text tower, computed once while weights stand still."""

from typing import Any

import torch
from torch import nn
from transformers import CLIPTextModel
from transformers.masking_utils import create_causal_mask

from .configuration_m2f2_det import M2F2DetConfig

__all__ = ["M2F2DetPromptEncoder"]


class M2F2DetPromptEncoder(nn.Module):
    """Seven learned vectors (no words, no begin or end token) to one text feature of width `hidden_size`.

    The feature depends on weights only. In inference (no gradients, `eval`) it is kept, and computed anew as soon as
    one of these weights is another tensor or was written to: see `_weights_stamp`.
    """

    def __init__(self, config: M2F2DetConfig) -> None:
        super().__init__()
        width = config.prompt_text_config.hidden_size
        self.prompt_tokens = nn.Parameter(torch.randn(1, config.prompt_token_num, width))
        self.text_tower = CLIPTextModel(config.prompt_text_config)
        self.proj = nn.Sequential(nn.Linear(width, config.hidden_size), nn.LayerNorm(config.hidden_size))
        self._kept: tuple[Any, torch.Tensor] | None = None

    def pooled(self) -> torch.Tensor:
        """(1, text width): the last prompt position after the final LayerNorm; CLIP's projection is not used."""
        tower = self.text_tower
        hidden_states = tower.embeddings(inputs_embeds=self.prompt_tokens)
        mask = create_causal_mask(
            config=tower.config, inputs_embeds=hidden_states, attention_mask=None, past_key_values=None
        )
        hidden_states = tower.encoder(inputs_embeds=hidden_states, attention_mask=mask, is_causal=True)
        return tower.final_layer_norm(hidden_states.last_hidden_state)[:, -1]

    def forward(self) -> torch.Tensor:
        """(1, `hidden_size`)."""
        stamp = self._weights_stamp() if self._may_keep() else None
        if stamp is None:
            self._kept = None
            return self.proj(self.pooled())
        if self._kept is None or self._kept[0] != stamp:
            self._kept = (stamp, self.proj(self.pooled()))
        return self._kept[1]

    def _may_keep(self) -> bool:
        """Not in training, not where the same weights can give another feature, not where weights cannot be read."""
        weights = list(self.parameters())
        return not (
            self.training
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch.is_autocast_enabled(self.prompt_tokens.device.type)
            or any(weight.grad is not None or weight.is_meta or weight.is_inference() for weight in weights)
            # PEFT switches its layers on and off without touching a weight
            or any(hasattr(module, "get_base_layer") for module in self.modules())
        )

    def _weights_stamp(self) -> Any:
        """What changes when a weight does: its address, its write count, and a sample of its values.

        The sample is for writes that are not counted (through `.data`, by fused optimizers).
        """
        weights = list(self.parameters())
        small = [self.prompt_tokens, *self.proj.parameters()]
        samples = [weight.detach().reshape(-1)[weight.numel() // 2] for weight in weights]
        sums = [weight.detach().double().sum() for weight in small]
        seen = torch.stack([value.double() for value in (*samples, *sums)]).tolist()
        attention = self.text_tower.config._attn_implementation
        return attention, seen, [(w.data_ptr(), w._version, w.dtype, w.device) for w in weights]

    # Belt and braces: where weights are usually replaced.
    def train(self, mode: bool = True) -> "M2F2DetPromptEncoder":
        self._kept = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> "M2F2DetPromptEncoder":
        self._kept = None
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept = None
        super()._load_from_state_dict(*args, **kwargs)
