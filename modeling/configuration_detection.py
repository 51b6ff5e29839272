"""Fields shared by the configs of all detectors: class order, calibration, operating points, decision band.

`decision_band` says which scores are clear enough for a decision. It is `None` if nothing was fitted, or has

- `low`, `high`: P(fake) up to `low` is "likely real", from `high` up "likely fake", and in between "inconclusive"; 0
  <= low < high <= 1;
- `fitted_on`: a text that names the images it was fitted on and the error rate it is meant to keep;
- `false_alarm_rate`, `miss_rate`: share of real images called "likely fake", and of fakes called "likely real",
  measured on images that the band was not fitted on;
- `coverage`: share of those images that got an answer, with equal weight for both classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

__all__ = [
    "DECISIONS",
    "ID2LABEL",
    "LABEL2ID",
    "check_decision_band",
    "check_detection_fields",
    "decide",
    "identity_calibration",
]

ID2LABEL = {0: "real", 1: "fake"}
LABEL2ID = {name: index for index, name in ID2LABEL.items()}
DECISIONS = ("likely real", "inconclusive", "likely fake")
BAND_RATES = ("false_alarm_rate", "miss_rate", "coverage")


def identity_calibration() -> dict[str, float]:
    """Return the identity calibration, `{"scale": 1.0, "bias": 0.0}`."""
    return {"scale": 1.0, "bias": 0.0}


def check_detection_fields(config: Any) -> None:
    """Fill in and validate the fields that every detector config has.

    Args:
        config: a config with `id2label`, `label2id`, `calibration` (`{"scale", "bias"}`, applied to the logit
            difference fake - real), `operating_points` (name -> threshold on P(fake), in [0, 1]) and `decision_band`
            (see above; may be absent).

    Raises:
        ValueError: that names the field, its value and the allowed values.
    """
    labels = {int(index): name for index, name in (config.id2label or ID2LABEL).items()}
    if labels == {0: "LABEL_0", 1: "LABEL_1"}:  # the default of transformers
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
    check_decision_band(getattr(config, "decision_band", None))


def check_decision_band(band: Any) -> None:
    """Raise a `ValueError` that names the field unless this is `None` or a complete decision band."""
    if band is None:
        return
    wanted = {"low", "high", "fitted_on", *BAND_RATES}
    if not isinstance(band, Mapping) or set(band) != wanted:
        raise ValueError(f"decision_band is {band!r}, expected None or an object with {', '.join(sorted(wanted))}.")
    for name in ("low", "high", *BAND_RATES):
        value = band[name]
        if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} of decision_band is {value!r}, expected a number in [0, 1].")
    if not band["low"] < band["high"]:
        raise ValueError(f"decision_band has low {band['low']} and high {band['high']}; low must be less than high.")
    if not isinstance(band["fitted_on"], str):
        raise ValueError(f"fitted_on of decision_band is {band['fitted_on']!r}, expected a text.")


def decide(probability: float, band: Mapping[str, Any] | None) -> str | None:
    """Return one of `DECISIONS` for P(fake) in [0, 1]; `None` without a band."""
    if band is None:
        return None
    if probability >= band["high"]:
        return "likely fake"
    return "likely real" if probability <= band["low"] else "inconclusive"
