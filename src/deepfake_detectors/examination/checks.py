"""Checks before a verdict, for images on which none of the detectors was tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

__all__ = ["CHECKS", "MIN_SIDE", "Check", "check_face", "check_image", "measure_image"]

CHECKS = ("too small", "blank", "drawing or document", "upscaled")
MIN_SIDE = 64  # pixels of the shorter side; below this, a detector mostly sees interpolation
WORKING_SIDE = 384  # longer side to which an image is shrunk for measuring
BLANK_RANGE = 16.0  # grey levels

# Strokes of pens and letters are thinner than this; without them, only paper or photographed objects remain.
STROKE = 13  # pixels, of WORKING_SIDE
PAPER_STEP, PAPER_FLAT, INK = 3.0, 0.9, 0.008


@dataclass(frozen=True)
class Check:
    """A failed check.

    Attributes:
        name: one of `CHECKS`.
        reason: one sentence for readers, with the measurement.
        applicable: whether a verdict can still be given; if not, the decision is `not applicable`.
        measured: the measured numbers.
    """

    name: str
    reason: str
    applicable: bool = False
    measured: dict[str, float] = field(default_factory=dict)


def check_image(image: Image.Image, *, seen_side: int | None = None) -> Check | None:
    """Return the first check that an image fails, or `None`.

    Their rates on pages and photographs are measured by `benchmarks/faces.py --only checks`.

    Args:
        image: the whole upright RGB image.
        seen_side: shorter side in pixels to which the detector resizes. A smaller image is enlarged and gets the
            remark "upscaled", with which a verdict can still be given; not checked if `None`.
    """
    short = min(image.size)
    if short < MIN_SIDE:
        return Check(
            "too small",
            f"The image is {image.width}x{image.height} pixels; sizes below {MIN_SIDE} were not tested.",
            measured={"short_side": float(short)},
        )
    measured = measure_image(image)
    if measured["range"] < BLANK_RANGE:
        return Check(
            "blank",
            f"The image is blank or nearly constant: 98 % of it is within {measured['range']:.0f} grey levels.",
            measured=measured,
        )
    if measured["step"] <= PAPER_STEP and measured["flat"] >= PAPER_FLAT and measured["ink"] >= INK:
        return Check(
            "drawing or document",
            f"The image looks like a line drawing or a document: without thin strokes, which cover "
            f"{measured['ink']:.0%} of it, {measured['flat']:.0%} is plain ground.",
            measured=measured,
        )
    if seen_side is not None and short < seen_side:
        return _upscaled("picture", short, seen_side, measured)
    return None


def check_face(box: Sequence[float], *, seen_side: int | None = None) -> Check | None:
    """Return the failed check for the size of a face crop, or `None`.

    Args:
        box: left, top, right, bottom of the crop in pixels of the image.
        seen_side: as for `check_image`.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    short = min(width, height)
    if short < MIN_SIDE:
        return Check(
            "too small",
            f"The crop of the face is {width:.0f}x{height:.0f} pixels; sizes below {MIN_SIDE} were not tested.",
            measured={"short_side": float(short)},
        )
    if seen_side is not None and round(short) < seen_side:
        return _upscaled("crop of the face", short, seen_side, {})
    return None


def _upscaled(what: str, short: float, seen_side: int, measured: dict[str, float]) -> Check:
    return Check(
        "upscaled",
        f"The shorter side of the {what} has {short:.0f} pixels and is enlarged to the {seen_side} that the detector "
        "uses, so it has less detail than the detector expects.",
        applicable=True,
        measured={**measured, "short_side": float(short)},
    )


def measure_image(image: Image.Image) -> dict[str, float]:
    """Return the measurements for the checks, on the image shrunk to 384 pixels.

    Returns:
        `range`: range of grey levels of the middle 98 % of pixels, 0 to 255. For the image without dark or light
        strokes thinner than 13 pixels, whichever leaves it plainer: `step`, mean difference in grey levels within 5x5
        pixels; `flat`, share of pixels where it is at most 10; `ink`, share of pixels that differ from the whole image
        by more than 40, the strokes.
    """
    small = image.copy()
    small.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    luma = np.asarray(small).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(luma, [1, 99])
    grounds = (_highest(_lowest(luma, STROKE), STROKE), _lowest(_highest(luma, STROKE), STROKE))
    steps = [_highest(ground, 5) - _lowest(ground, 5) for ground in grounds]
    plainer = int(steps[1].mean() <= steps[0].mean())
    return {
        "range": float(high - low),
        "step": float(steps[plainer].mean()),
        "flat": float((steps[plainer] <= 10).mean()),
        "ink": float((np.abs(grounds[plainer] - luma) > 40).mean()),
    }


def _highest(values: np.ndarray, side: int) -> np.ndarray:
    """Return the maximum in a square of `side` pixels around each pixel."""
    reach = side // 2
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if other == axis else (0, 0) for other in (0, 1)], mode="edge")
        values = np.lib.stride_tricks.sliding_window_view(padded, side, axis=axis).max(axis=-1)
    return values


def _lowest(values: np.ndarray, side: int) -> np.ndarray:
    return -_highest(-values, side)
