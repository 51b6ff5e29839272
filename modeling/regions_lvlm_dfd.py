"""Regions of a face: the region words of LVLM-DFD's published dialogues, parsed from answers and derived from masks.

The words and sentences are those of the official dialogue page. The position of each region, and the share at which a
mask covers it, are unpublished and were chosen for this package. Left and right are as seen in the image.
"""

import re
from collections.abc import Sequence

import numpy as np

__all__ = [
    "REGIONS",
    "SCORE_QUESTION",
    "VERDICT_QUESTION",
    "parse_regions",
    "region_area",
    "regions_of_mask",
    "score_answer",
    "verdict_answer",
]

VERDICT_QUESTION = "Is this a deepfake image?"
SCORE_QUESTION = "How much is the forgery score?"

# Ellipses in a centred crop of one face with some margin: centre x, y and half axes, as shares of width and height.
SHAPES = {
    "left eye": (0.36, 0.42, 0.10, 0.07),
    "right eye": (0.64, 0.42, 0.10, 0.07),
    "nose_ridge": (0.50, 0.46, 0.05, 0.09),
    "nose": (0.50, 0.58, 0.08, 0.06),
    "left cheek": (0.32, 0.60, 0.09, 0.10),
    "right cheek": (0.68, 0.60, 0.09, 0.10),
    "left jaw": (0.34, 0.79, 0.11, 0.09),
    "right jaw": (0.66, 0.79, 0.11, 0.09),
    "center face": (0.50, 0.56, 0.22, 0.24),
    "full face": (0.50, 0.52, 0.34, 0.42),
}
REGIONS = tuple(SHAPES)
WHOLES = ("full face", "center face")  # the larger one first
PARTS = tuple(name for name in REGIONS if name not in WHOLES)
# Points of dlib's 68 (the 81-point model appends the forehead) that each region surrounds.
POINTS = {
    "left eye": range(36, 42),
    "right eye": range(42, 48),
    "nose_ridge": range(27, 31),
    "nose": range(30, 36),
    "left cheek": (2, 31, 41, 48),
    "right cheek": (14, 35, 46, 54),
    "left jaw": (4, 5, 6, 7, 48),
    "right jaw": (9, 10, 11, 12, 54),
    "center face": (*range(36, 48), *range(48, 60)),
    "full face": range(68),
}
DLIB_POINTS = 68
SMALLEST_AXIS = 0.05  # for a region around landmarks on a straight line, as a share of the face's width
COVERED, WHOLE_COVERED = 0.5, 0.7  # minimum share of its area
MOST_PARTS = 3  # the published answers name one to three

NAMED = re.compile(r"artifacts? (?:is|are) at (?:the )?(?P<list>[^.]+?)(?: of (?:the|this) image)?\s*(?:\.|$)", re.I)
SEPARATOR = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+")


def region_area(name: str, height: int, width: int, landmarks: Sequence | np.ndarray | None = None) -> np.ndarray:
    """Return the pixels of a region, bool `(height, width)`.

    Args:
        name: one of `REGIONS`.
        height, width: size of the image, a crop of one face.
        landmarks: `(points, 2)`, x and y in pixels: dlib's 68 or 81; without them the regions have their usual places
            in a centred crop.

    Raises:
        ValueError: for an unknown region, or landmarks in another format.
    """
    _require_known([name])
    if landmarks is None:
        x, y, half_width, half_height = np.array(SHAPES[name]) * (width, height, width, height)
    else:
        points = np.asarray(landmarks, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < DLIB_POINTS or not np.isfinite(points).all():
            raise ValueError(f"landmarks have shape {points.shape}, expected dlib's 68 or 81 points, (points, 2).")
        chosen = points[list(POINTS[name])]
        low, high = chosen.min(axis=0), chosen.max(axis=0)
        smallest = SMALLEST_AXIS * np.ptp(points[:, 0])
        (x, y), (half_width, half_height) = (low + high) / 2, np.maximum((high - low) / 2, smallest)
    rows, columns = np.ogrid[:height, :width]
    return ((columns + 0.5 - x) / half_width) ** 2 + ((rows + 0.5 - y) / half_height) ** 2 <= 1.0


def regions_of_mask(mask: np.ndarray, landmarks: Sequence | np.ndarray | None = None) -> list[str]:
    """Name the regions that a mask covers, as in the published answers: the whole face, its center, or up to three.

    Args:
        mask: float `(height, width)` in [0, 1] over a crop of one face, 1 where manipulated.
        landmarks: see `region_area`.

    Returns:
        Names from `REGIONS`, empty if nothing was manipulated. A mask that does not cover any region gets the one with
        the largest overlap.

    Raises:
        ValueError: as for `region_area`, and for a mask of the wrong shape.
    """
    if mask.ndim != 2:
        raise ValueError(f"The mask has shape {mask.shape}, expected (height, width).")
    changed = mask >= 0.5
    if not changed.any():
        return []
    shares = {}
    for name in REGIONS:
        area = region_area(name, mask.shape[0], mask.shape[1], landmarks)
        shares[name] = float(changed[area].mean()) if area.any() else 0.0
    for name in WHOLES:
        if shares[name] >= WHOLE_COVERED:
            return [name]
    ranked = sorted(PARTS, key=lambda name: -shares[name])
    chosen = [name for name in ranked if shares[name] >= COVERED][:MOST_PARTS]
    if not chosen and shares[ranked[0]] > 0:
        chosen = ranked[:1]
    return [name for name in REGIONS if name in chosen]


def parse_regions(text: str) -> tuple[list[str], list[str]]:
    """Return the regions named in an answer, and region words that are not in `REGIONS`."""
    known: list[str] = []
    unknown: list[str] = []
    for found in NAMED.finditer(text):
        for word in SEPARATOR.split(found["list"].strip()):
            name = word.strip().lower().removeprefix("the ").strip()
            name = "nose_ridge" if name == "nose ridge" else name
            target = known if name in SHAPES else unknown
            if name and name not in target:
                target.append(name)
    return known, unknown


def verdict_answer(fake: bool, regions: Sequence[str] = ()) -> str:
    """Return the answer to `VERDICT_QUESTION` in the official words.

    Raises:
        ValueError: for a region that is not in `REGIONS`, or regions for a real image.
    """
    _require_known(regions)
    if not fake:
        if regions:
            raise ValueError(f"A real image cannot have forged regions, got {', '.join(regions)}.")
        return "No, this is not a deepfake image. The image appears to be a genuine photograph of a person's face."
    place = f", the artifact is at the {', '.join(regions)} of the image" if regions else ""
    return f"Yes. This is a deepfake image{place}."


def score_answer(percent: int, regions: Sequence[str] = ()) -> str:
    """Return the answer to `SCORE_QUESTION` in the official words; errors as in `verdict_answer`.

    Args:
        percent: P(fake) in 0 to 100.
        regions: regions of a fake image.
    """
    _require_known(regions)
    if not 0 <= percent <= 100:
        raise ValueError(f"percent is {percent}, expected 0 to 100.")
    place = f" The artifact is at the {', '.join(regions)} of the image." if regions else ""
    return f"The forgery score is {percent}% for this image.{place}"


def _require_known(regions: Sequence[str]) -> None:
    unknown = [name for name in regions if name not in SHAPES]
    if unknown:
        raise ValueError(f"{', '.join(map(repr, unknown))} is not a region; allowed are {', '.join(REGIONS)}.")
