"""M2F2-Det's learned text prompt: free vectors through CLIP's text tower, computed once while weights stand still."""

import torch
from torch import nn
from transformers import CLIPTextModel
from transformers.masking_utils import create_causal_mask

from .configuration_m2f2_det import M2F2DetConfig
from .kept_feature import FeatureKeeper

__all__ = ["M2F2DetPromptEncoder"]


class M2F2DetPromptEncoder(FeatureKeeper):
    """Seven learned vectors (no words, no begin or end token) to one text feature of width `hidden_size`.

    The feature depends on weights only; in inference it is kept while they stand still.
    """

    def __init__(self, config: M2F2DetConfig) -> None:
        super().__init__()
        width = config.prompt_text_config.hidden_size
        self.prompt_tokens = nn.Parameter(torch.randn(1, config.prompt_token_num, width))
        self.text_tower = CLIPTextModel(config.prompt_text_config)
        self.proj = nn.Sequential(nn.Linear(width, config.hidden_size), nn.LayerNorm(config.hidden_size))

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
        return self.keep(
            lambda: self.proj(self.pooled()),
            parts=[self.text_tower],
            weights=[self.prompt_tokens, *self.proj.parameters()],
            settings=self.text_tower.config._attn_implementation,
        )
