"""What the configs of all detectors have in common: class order, calibration and named thresholds."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

__all__ = ["ID2LABEL", "LABEL2ID", "check_detection_fields", "identity_calibration"]

ID2LABEL = {0: "real", 1: "fake"}
LABEL2ID = {name: index for index, name in ID2LABEL.items()}


def identity_calibration() -> dict[str, float]:
    """The calibration that changes nothing: `{"scale": 1.0, "bias": 0.0}`."""
    return {"scale": 1.0, "bias": 0.0}


def check_detection_fields(config: Any) -> None:
    """Fill and validate the fields every detector config carries.

    Args:
        config: a config with `id2label`, `label2id`, `calibration` (`{"scale", "bias"}`, applied to the logit
            difference fake - real) and `operating_points` (name -> threshold on P(fake), in [0, 1]).

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    labels = {int(index): name for index, name in (config.id2label or ID2LABEL).items()}
    if labels == {0: "LABEL_0", 1: "LABEL_1"}:  # what transformers fills in when nothing was given
        labels = ID2LABEL
    if labels != ID2LABEL:
        raise ValueError(
            f"id2label is {labels}, but every detector of this package orders its logits {ID2LABEL}; "
            "re-order the checkpoint's classes when you convert it."
        )
    config.id2label, config.label2id = dict(ID2LABEL), dict(LABEL2ID)

    if config.calibration is None:
        config.calibration = identity_calibration()
    if set(config.calibration) != {"scale", "bias"} or not all(
        isinstance(value, Real) and math.isfinite(value) for value in config.calibration.values()
    ):
        raise ValueError(f"calibration is {config.calibration}, expected finite numbers under 'scale' and 'bias'.")
    if config.calibration["scale"] <= 0:
        raise ValueError(f"calibration scale is {config.calibration['scale']}, but it must be positive.")

    if config.operating_points is None:
        config.operating_points = {}
    for name, threshold in config.operating_points.items():
        if not isinstance(threshold, Real) or not 0.0 <= threshold <= 1.0:
            raise ValueError(f"operating point {name!r} is {threshold!r}, expected a threshold on P(fake) in [0, 1].")
