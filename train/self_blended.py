"""Self-blended images (Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022).

A real face is blended with a slightly altered copy of itself. The result has the traces of blending (a different
colour cast, different sharpness, a seam) without those of a particular generator. Implemented from the paper: the
order of steps and the blending ratios are from there; ranges that it does not give are ours and marked "ours".
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from torchvision.transforms.v2 import functional as transforms

from deepfake_detectors.modeling.image_loading import load_image

__all__ = ["REGIONS", "SelfBlended", "SelfBlending", "region_mask"]

# The paper replaces the whole face; the parts are ours, for a localiser that has to find them.
DEFAULT_REGIONS = (*["face"] * 3, "upper_face", "lower_face", "eyes", "nose", "mouth")
RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # full blends come up half of the time
SHIFT_X, SHIFT_Y, SCALE = 0.03, 0.015, 0.05  # of the source, as shares of the image
ELASTIC_SHARES = (0.12, 0.05)  # ours: size and smoothness of the mask's deformation, as shares of the shorter side
BLUR_SHARES = (0.005, 0.035)  # ours: the same for both smoothings of the mask
COLOUR_PROBABILITY = 0.5  # ours, of each of the colour changes below
LEVELS, HUE, SATURATION, BRIGHTNESS, CONTRAST = 20, 0.02, 0.3, 0.1, 0.1  # ours but the 20 grey levels
SHRINKING = (2, 4)  # factors of the lost resolution
SHARPENING = (1.5, 3.0)  # ours
# Ours: a blend that changes what it replaces by less, grey levels on average, cannot be told from the real image and
# is drawn again; a plain image cannot give more, whatever is drawn.
SMALLEST_CHANGE, TRIES = 1.5, 5
SMALLEST_AREA = 0.002  # of a mask, as share of the image; erosion that leaves less is not applied
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
    """Return one region as float32 `(height, width)` of 0 and 1.

    Args:
        name: one of `REGIONS`.
        height, width: size of the image in pixels.
        generator: moves and stretches the drawn shape slightly; not used with landmarks.
        landmarks: `(points, 2)`, x and y in pixels: dlib's 68 or 81. Any other number of at least three points only
            works for `"face"`, as their convex hull.

    Raises:
        ValueError: for an unknown region, or landmarks that do not define it.
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
        raise ValueError(
            f"The landmarks of region {name!r} are on a straight line: {points.tolist()[:3]}..."
        ) from error


class SelfBlended(NamedTuple):
    """A self-blended fake.

    Args:
        image: uint8 `(height, width, 3)`.
        mask: float32 `(height, width)` in [0, 1]: where the altered copy was blended in, soft at the seam.
        regions: names of the replaced regions.
    """

    image: np.ndarray
    mask: np.ndarray
    regions: list[str]


class SelfBlending:
    """Turns real images into self-blended fakes, as a transform of `datasets`.

        rows.with_transform(SelfBlending(probability=0.5, seed=0))

    Also for `rows.map(..., batched=True)`. It adds to every row an image, `mask` (PIL, mode `L`, 0-255; black where
    unchanged; `None` for fakes of the dataset, whose mask is unknown) and `regions`, and sets the label of blended
    images to 1. The result for a row depends only on the seed, the epoch and the row's id (or its pixels, without an
    id), not on the order, the number of workers or earlier draws.

    Args:
        probability: share of the real images that become fakes.
        regions: names from `REGIONS`; each blend draws one, and a repeated name is drawn more frequently.
        seed: seed of all random draws.
        image, label, mask, identity: names of the columns.
        landmarks: name of the column with `(points, 2)` landmarks in pixels, or `None` for drawn shapes.

    Raises:
        ValueError: for a probability out of range or an unknown region.
    """

    def __init__(
        self,
        probability: float = 1.0,
        regions: Sequence[str] | None = None,
        seed: int = 0,
        image: str = "image",
        label: str = "label",
        mask: str = "mask",
        identity: str = "id",
        landmarks: str | None = None,
    ) -> None:
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability is {probability}, expected a share in [0, 1].")
        self.regions = tuple(DEFAULT_REGIONS if regions is None else regions)
        if not self.regions or set(self.regions) - set(REGIONS):
            raise ValueError(f"regions are {list(self.regions)}, allowed are {', '.join(REGIONS)}.")
        self.probability, self.seed, self.epoch = probability, seed, 0
        self.image, self.label, self.mask, self.identity, self.landmarks = image, label, mask, identity, landmarks

    def set_epoch(self, epoch: int) -> None:
        """Use new random draws from now on, like a sampler's `set_epoch`."""
        self.epoch = epoch

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Return a batch of columns, with the columns described above replaced or added."""
        images, labels, masks, regions = [], [], [], []
        for row in range(len(batch[self.image])):
            picture, label = load_image(batch[self.image][row]), batch[self.label][row]
            pixels = np.asarray(picture)
            identity = str(batch[self.identity][row]).encode() if self.identity in batch else pixels.tobytes()
            generator = np.random.default_rng([self.seed, self.epoch, zlib.crc32(identity)])
            mask: Image.Image | None = Image.new("L", picture.size) if label == 0 else None
            names: list[str] = []
            if label == 0 and generator.random() < self.probability:
                landmarks = batch[self.landmarks][row] if self.landmarks is not None else None
                blended = self.blend(pixels, generator, landmarks)
                picture, label, names = Image.fromarray(blended.image), 1, blended.regions
                mask = Image.fromarray((blended.mask * 255).round().astype(np.uint8))
            images.append(picture)
            labels.append(label)
            masks.append(mask)
            regions.append(names)
        return {**batch, self.image: images, self.label: labels, self.mask: masks, "regions": regions}

    def blend(
        self, image: np.ndarray, generator: np.random.Generator, landmarks: Sequence | np.ndarray | None = None
    ) -> SelfBlended:
        """A self-blended fake.

        Args:
            image: uint8 `(height, width, 3)`, a real face.
            generator: source of all random draws.
            landmarks: see `region_mask`.

        Raises:
            ValueError: for pixels with the wrong type or shape, or landmarks that do not define the region.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image is {image.dtype} of shape {image.shape}, expected uint8 (height, width, 3).")
        for _ in range(TRIES):
            blended, change = self._blend_once(image, generator, landmarks)
            if change >= SMALLEST_CHANGE:
                break
        return blended

    def _blend_once(
        self, image: np.ndarray, generator: np.random.Generator, landmarks: Sequence | np.ndarray | None
    ) -> tuple[SelfBlended, float]:
        """Return one blend, and the average change of the replaced area in grey levels."""
        height, width = image.shape[:2]
        name = self.regions[int(generator.integers(len(self.regions)))]
        mask = region_mask(name, height, width, generator, landmarks)
        source = target = image
        # Either of the two is altered, so that the colour difference at the seam has either sign.
        if generator.random() < 0.5:
            source = _change_look(source, generator)
        else:
            target = _change_look(target, generator)
        source, mask = _displace(source, mask, generator)
        mask = _soften(_deform(mask, generator), generator)
        weight = mask[..., None] * generator.choice(RATIOS)
        steps = (source.astype(np.float32) - target) * weight
        blended = (target + steps).round().clip(0, 255).astype(np.uint8)
        change = float(np.abs(steps).mean(axis=2).sum() / mask.sum())
        return SelfBlended(blended, mask, [name]), change


def _change_look(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Change the colours, and reduce or increase sharpness."""
    draws = generator.uniform(-1.0, 1.0, size=7)
    chosen = generator.random(3) < COLOUR_PROBABILITY
    if not chosen.any():
        chosen[int(generator.integers(3))] = True
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    if chosen[0]:
        levels = torch.from_numpy((LEVELS * draws[:3]).round()).reshape(3, 1, 1)
        pixels = (pixels + levels).clamp(0, 255).to(torch.uint8)
    if chosen[1]:
        pixels = transforms.adjust_hue(pixels, HUE * float(draws[3]))
        pixels = transforms.adjust_saturation(pixels, 1.0 + SATURATION * float(draws[4]))
    if chosen[2]:
        pixels = transforms.adjust_brightness(pixels, 1.0 + BRIGHTNESS * float(draws[5]))
        pixels = transforms.adjust_contrast(pixels, 1.0 + CONTRAST * float(draws[6]))
    if generator.random() < 0.5:
        factor = int(generator.integers(SHRINKING[0], SHRINKING[1] + 1))
        height, width = pixels.shape[1:]
        small = transforms.resize(pixels, [max(1, height // factor), max(1, width // factor)], antialias=True)
        pixels = transforms.resize(small, [height, width], antialias=True)
    else:
        pixels = transforms.adjust_sharpness(pixels, float(generator.uniform(*SHARPENING)))
    return pixels.permute(1, 2, 0).numpy()


def _displace(image: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shift and resize both slightly and equally; the edge is repeated."""
    height, width = mask.shape
    right, down = generator.uniform(-1.0, 1.0, size=2) * (SHIFT_X * width, SHIFT_Y * height)
    scale = 1.0 + generator.uniform(-SCALE, SCALE)
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = middle - (middle + np.array([down, right])) / scale
    channels = [
        ndimage.affine_transform(channel.astype(np.float32), [1 / scale] * 2, offset, order=1, mode="nearest")
        for channel in np.moveaxis(image, 2, 0)
    ]
    moved = ndimage.affine_transform(mask, [1 / scale] * 2, offset, order=1, mode="constant")
    return np.stack(channels, axis=2), moved.astype(np.float32)


def _deform(mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Deform the mask elastically, so that shapes do not repeat."""
    size, smoothness = (share * min(mask.shape) for share in ELASTIC_SHARES)
    noise = generator.uniform(-1.0, 1.0, size=(2, *mask.shape))
    waves = [ndimage.gaussian_filter(field, smoothness, mode="constant") for field in noise]
    # Scaled to a typical step, because smoothing removes most of the noise.
    steps = [wave / max(float(np.abs(wave).max()), 1e-9) * size * generator.uniform(0.2, 0.5) for wave in waves]
    grid = np.meshgrid(*(np.arange(length) for length in mask.shape), indexing="ij")
    places = [axis + step for axis, step in zip(grid, steps, strict=True)]
    return ndimage.map_coordinates(mask, places, order=1, mode="constant").astype(np.float32)


def _soften(mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Smooth twice; in between, keep only the area that the first smoothing left at full strength.

    The region shrinks if the first smoothing is the wider one, and grows otherwise.
    """
    first, second = generator.uniform(*BLUR_SHARES, size=2) * min(mask.shape)
    hard = (mask > 0.5).astype(np.float32)
    core = (ndimage.gaussian_filter(hard, first) > 1.0 - 1.0 / 255).astype(np.float32)
    if core.mean() < SMALLEST_AREA:
        core = hard
    soft = ndimage.gaussian_filter(core, second)
    peak = float(soft.max())
    return (soft / peak).astype(np.float32) if peak > 0 else soft
