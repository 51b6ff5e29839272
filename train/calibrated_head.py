"""A calibration that was fitted behind a detector, moved into its weights."""

from __future__ import annotations

import torch

from deepfake_detectors.modeling.configuration_detection import identity_calibration
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection

__all__ = ["fold_calibration"]


@torch.no_grad()
def fold_calibration(model: M2F2DetForDeepfakeDetection) -> None:
    """Put the calibration into the head, so that `forward`, and with it every stock pipeline, gives calibrated logits.

    Exact: the calibration is affine in the logit difference, and the head is linear.
    """
    head, calibration = model.detector.classifier, model.config.calibration
    for values, shift in ((head.weight, 0.0), (head.bias, calibration["bias"])):
        real, fake = values.double()
        half = (calibration["scale"] * (fake - real) + shift) / 2
        values.copy_(torch.stack([(real + fake) / 2 - half, (real + fake) / 2 + half]))
    model.config.calibration = identity_calibration()
