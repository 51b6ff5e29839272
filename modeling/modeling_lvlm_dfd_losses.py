"""Losses on LVLM-DFD's mask.

The published code calls a focal and a dice loss without containing them; these follow the public code of its
predecessor (AnomalyGPT), reconstructed.
"""

import torch
from torch.nn import functional as F

__all__ = ["dice_loss", "focal_loss"]

FOCAL_GAMMA = 2
SMOOTH = 1e-5


def focal_loss(probabilities: torch.Tensor, mask_labels: torch.Tensor, threshold: float | None) -> torch.Tensor:
    """Mean over all pixels of -(1 - p)^2 log p, with p the probability of the pixel's class.

    Args:
        probabilities: (batch, 2, height, width), real and fake, sum 1.
        mask_labels: (batch, height, width), manipulated share in [0, 1].
        threshold: a pixel counts as manipulated above it; `None` as from exactly 1, as in the published code.
    """
    manipulated = mask_labels.long() if threshold is None else (mask_labels > threshold).long()
    target = F.one_hot(manipulated, num_classes=2).movedim(-1, 1).to(probabilities.dtype)
    target = target.clamp(SMOOTH, 1 - SMOOTH)
    probability = (target * probabilities).sum(dim=1) + SMOOTH
    return (-((1 - probability) ** FOCAL_GAMMA) * probability.log()).mean()


def dice_loss(fake_mask: torch.Tensor, mask_labels: torch.Tensor) -> torch.Tensor:
    """Mean over pictures of 1 - (2 sum(p g) + 1) / (sum p + sum g + 1); both (batch, height, width) in [0, 1]."""
    predicted, true = fake_mask.flatten(1), mask_labels.flatten(1).to(fake_mask.dtype)
    shared = (predicted * true).sum(dim=1)
    return (1 - (2 * shared + 1) / (predicted.sum(dim=1) + true.sum(dim=1) + 1)).mean()
