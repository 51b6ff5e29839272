"""What is looked at before a verdict: pictures on which no detector of this package was tested."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

__all__ = ["CHECKS", "MIN_SIDE", "Check", "check_image", "measure_image"]

CHECKS = ("blank", "too small", "drawing or document", "upscaled")
MIN_SIDE = 64  # pixels of the short side; below, every detector of this package sees mostly its own interpolation
WORKING_SIDE = 512  # long side to which a picture is shrunk before it is measured
BLANK_SPREAD = 3.0  # grey levels


@dataclass(frozen=True)
class Check:
    """A reason for caution.

    Attributes:
        name: one of `CHECKS`.
        reason: one sentence for people, with what was measured.
        applicable: whether a verdict may be given nevertheless; where not, the decision is `not applicable`.
        measured: the numbers behind it.
    """

    name: str
    reason: str
    applicable: bool = False
    measured: dict[str, float] = field(default_factory=dict)


def check_image(image: Image.Image, *, seen_side: int | None = None) -> Check | None:
    """Return the first check that a picture does not pass, or `None`.

    Args:
        image: upright RGB picture, whole.
        seen_side: short side in pixels of the pictures that the detector was fitted on. A picture whose detail would
            fit into a quarter of it is remarked as upscaled; without it this is not looked at.
    """
    short = min(image.size)
    if short < MIN_SIDE:
        return Check(
            "too small",
            f"The picture is {image.width}x{image.height} pixels; below {MIN_SIDE} nothing was tested.",
            measured={"short_side": short},
        )
    measured = measure_image(image)
    if measured["spread"] < BLANK_SPREAD:
        return Check(
            "blank",
            f"The picture is blank or nearly so: 98 % of it lies within {measured['spread']:.1f} grey levels.",
            measured=measured,
        )
    if is_drawn(measured):
        return Check(
            "drawing or document",
            f"The picture looks like a drawing or a document: {measured['flat']:.0%} of it is flat and one shade "
            f"covers {measured['ground']:.0%}. The detectors were tested on photographs and photo-like pictures.",
            measured=measured,
        )
    return None


def is_drawn(measured: dict[str, float]) -> bool:
    """Whether the numbers of `measure_image` are those of a drawing or a document."""
    return measured["ground"] > 0.55 and measured["flat"] > 0.5


def measure_image(image: Image.Image) -> dict[str, float]:
    """Return the numbers behind the checks.

    Returns:
        `spread`: range of luma that holds the middle 98 % of pixels, 0 to 255. `flat`: share of pixels whose 3x3
        neighbourhood spans at most 6 grey levels. `ground`: share of pixels within 10 grey levels of the commonest
        shade. `colour`: mean difference between the largest and the smallest channel, 0 to 255.
    """
    small = image.copy()
    small.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.int16)
    luma = (pixels @ np.array([299, 587, 114]) / 1000).round().astype(np.int16)
    low, high = np.percentile(luma, [1, 99])
    windows = np.lib.stride_tricks.sliding_window_view(luma, (3, 3))
    span = windows.max(axis=(2, 3)) - windows.min(axis=(2, 3))
    counts = np.bincount(luma.ravel(), minlength=256)
    around = np.convolve(counts, np.ones(21), mode="same")
    colour = pixels.max(axis=2) - pixels.min(axis=2)
    return {
        "spread": float(high - low),
        "flat": float((span <= 6).mean()),
        "ground": float(around.max() / luma.size),
        "colour": float(colour.mean()),
    }
