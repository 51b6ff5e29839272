"""LVLM-DFD's two class texts: what "real" and "fake" are in ImageBind's joint embedding."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_lvlm_dfd import LvlmDfdConfig
from .modeling_imagebind import ImageBindModel

__all__ = ["LvlmDfdClassTexts"]


class LvlmDfdClassTexts(nn.Module):
    """Per class: the mean of the learned vectors and of the sentences' embeddings, brought to length 1.

    The result depends on weights only, not on pictures. In inference (no gradients, `eval`) it is kept, and computed
    anew as soon as one of these weights is another tensor or was written to: see `_weights_stamp`.
    """

    def __init__(self, config: LvlmDfdConfig) -> None:
        super().__init__()
        self.config = config
        self.ctx = nn.Parameter(torch.zeros(config.num_ctx_tokens, config.imagebind_config.projection_dim))
        self._kept: tuple[Any, torch.Tensor] | None = None

    def token_ids(self, device: torch.device) -> torch.LongTensor:
        """(sentences of both classes, longest), padded with 0 on the right, which a causal trunk does not see."""
        sentences = [torch.tensor(ids) for each in self.config.class_token_ids for ids in each]
        return nn.utils.rnn.pad_sequence(sentences, batch_first=True).to(device)

    def compute(self, imagebind: ImageBindModel) -> torch.Tensor:
        """(2, projection_dim), real and fake, each of length 1; with gradients."""
        embeds = imagebind.get_text_features(self.token_ids(self.ctx.device))
        counts = [len(sentences) for sentences in self.config.class_token_ids]
        means = [torch.cat([self.ctx, part]).mean(dim=0) for part in embeds.split(counts)]
        return F.normalize(torch.stack(means), dim=-1)

    def forward(self, imagebind: ImageBindModel) -> torch.Tensor:
        """(2, projection_dim), kept between calls where nothing it depends on has changed."""
        stamp = None if self.training or torch.is_grad_enabled() else self._weights_stamp(imagebind)
        if stamp is None:
            return self.compute(imagebind)
        if self._kept is None or self._kept[0] != stamp:
            self._kept = (stamp, self.compute(imagebind))
        return self._kept[1]

    def _weights_stamp(self, imagebind: ImageBindModel) -> Any:
        """Address and write count of every weight, or `None` where these say nothing (offloaded, compiling)."""
        if torch.compiler.is_compiling():
            return None
        text_parts = (imagebind.text_model, imagebind.text_projection)
        weights = [self.ctx, imagebind.logit_scale, *(weight for part in text_parts for weight in part.parameters())]
        if any(weight.is_meta or weight.is_inference() for weight in weights):
            return None
        # An adapter that is switched off or merged changes the result, or where it comes from, but no weight.
        adapters = [
            (module.disable_adapters, tuple(module.active_adapters), tuple(module.merged_adapters))
            for part in text_parts
            for module in part.modules()
            if hasattr(module, "merged_adapters")
        ]
        attention = imagebind.text_model.config._attn_implementation
        addresses = [(weight.data_ptr(), weight._version, weight.dtype, weight.device) for weight in weights]
        return attention, adapters, addresses, repr(self.config.class_token_ids)

    # Writes through `.data` are not counted; these three are the places where they happen.
    def train(self, mode: bool = True) -> "LvlmDfdClassTexts":
        self._kept = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> "LvlmDfdClassTexts":
        self._kept = None
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept = None
        super()._load_from_state_dict(*args, **kwargs)
