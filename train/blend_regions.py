"""Which part of a face a self-blended picture replaces: drawn shapes for centred face crops, or hulls of landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull, QhullError

__all__ = ["REGIONS", "region_mask"]

# Ellipses in a centred crop of one face with some margin: middle x, y and half axes, as shares of width and height.
SHAPES: dict[str, tuple[float, float, float, float]] = {
    "face": (0.50, 0.52, 0.34, 0.42),
    "upper_face": (0.50, 0.36, 0.32, 0.24),
    "lower_face": (0.50, 0.72, 0.28, 0.22),
    "eyes": (0.50, 0.40, 0.30, 0.12),
    "nose": (0.50, 0.55, 0.12, 0.17),
    "mouth": (0.50, 0.74, 0.20, 0.12),
}
REGIONS = tuple(SHAPES)
# Points of dlib's 68 (the 81-point model appends the forehead): jaw 0-16, brows 17-26, nose 27-35, eyes 36-47,
# mouth 48-67.
POINTS: dict[str, list[int]] = {
    "upper_face": [0, 1, 2, 14, 15, 16, *range(17, 28), 30, *range(36, 48)],
    "lower_face": [*range(3, 14), *range(31, 36), *range(48, 60)],
    "eyes": [*range(17, 27), *range(36, 48)],
    "nose": list(range(27, 36)),
    "mouth": list(range(48, 60)),
}
DLIB_POINTS = 68
MIDDLE_JITTER, AXIS_JITTER = 0.03, (0.85, 1.15)  # ours: crops differ in where and how large the face is
CORNERS = 48


def region_mask(
    name: str, height: int, width: int, generator: np.random.Generator, landmarks: Sequence | np.ndarray | None = None
) -> np.ndarray:
    """One region as float32 `(height, width)` of 0 and 1.

    Args:
        name: one of `REGIONS`.
        height, width: of the picture, pixels.
        generator: moves and stretches the drawn shape a little; not used with landmarks.
        landmarks: `(points, 2)`, x and y in pixels: dlib's 68 or 81. Any other number of at least three points serves
            `"face"` alone, as their convex hull.

    Raises:
        ValueError: for an unknown region, or landmarks that cannot give it.
    """
    if name not in SHAPES:
        raise ValueError(f"Region {name!r} is unknown, allowed are {', '.join(REGIONS)}.")
    corners = _drawn(name, height, width, generator) if landmarks is None else _hull(name, np.asarray(landmarks))
    picture = Image.new("L", (width, height))
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in corners], fill=1)
    return np.asarray(picture, dtype=np.float32)


def _drawn(name: str, height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    x, y, half_width, half_height = SHAPES[name]
    x, y = np.array([x, y]) + generator.uniform(-MIDDLE_JITTER, MIDDLE_JITTER, size=2)
    half_width, half_height = np.array([half_width, half_height]) * generator.uniform(*AXIS_JITTER, size=2)
    angles = np.linspace(0.0, 2.0 * np.pi, CORNERS, endpoint=False)
    return np.stack([(x + half_width * np.cos(angles)) * width, (y + half_height * np.sin(angles)) * height], axis=1)


def _hull(name: str, landmarks: np.ndarray) -> np.ndarray:
    points = landmarks.astype(np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
        raise ValueError(f"landmarks have shape {landmarks.shape}, expected (points, 2) with at least three points.")
    if name != "face":
        if len(points) < DLIB_POINTS:
            raise ValueError(f"Region {name!r} needs dlib's 68 or 81 landmarks, got {len(points)}; use 'face'.")
        points = points[POINTS[name]]
    try:
        return points[ConvexHull(points).vertices]
    except QhullError as error:
        raise ValueError(f"The landmarks of region {name!r} lie on one line: {points.tolist()[:3]}...") from error
