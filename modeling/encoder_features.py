"""What every CNN branch of a detector returns."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["EncoderFeatures"]


class EncoderFeatures(NamedTuple):
    """Output of a CNN branch.

    Attributes:
        feature_map: last feature map, `(batch, channels, height, width)`.
        pooled: one vector per picture, `(batch, num_features)`.
        mask_logits: logits of "this cell was manipulated", `(batch, mask_height, mask_width)`, or `None` where the
            branch does not localise.
    """

    feature_map: torch.Tensor
    pooled: torch.Tensor
    mask_logits: torch.Tensor | None = None
