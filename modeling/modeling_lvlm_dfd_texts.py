"""LVLM-DFD's two class texts: what "real" and "fake" are in ImageBind's joint embedding."""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_lvlm_dfd import LvlmDfdConfig
from .kept_feature import FeatureKeeper
from .modeling_imagebind import ImageBindModel

__all__ = ["LvlmDfdClassTexts"]


class LvlmDfdClassTexts(FeatureKeeper):
    """Per class: the mean of the learned vectors and of the sentences' embeddings, brought to length 1.

    The result depends on weights only, not on pictures; in inference it is kept while they stand still.
    """

    def __init__(self, config: LvlmDfdConfig) -> None:
        super().__init__()
        self.config = config
        self.ctx = nn.Parameter(torch.zeros(config.num_ctx_tokens, config.imagebind_config.projection_dim))

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
        return self.keep(
            lambda: self.compute(imagebind),
            parts=[imagebind.text_model, imagebind.text_projection],
            weights=[self.ctx, imagebind.logit_scale],
            settings=(imagebind.text_model.config._attn_implementation, repr(self.config.class_token_ids)),
        )
