"""Augmentation of training images: mirror, shift, crop, blur, compress."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from deepfake_detectors.modeling.image_loading import load_image

__all__ = ["JPEG_QUALITIES", "PictureVariation", "Variation", "shift_image"]

LARGEST_SIGMA = 3.0
# The official M2F2-Det code treats this two-element list as two choices, not as a range.
JPEG_QUALITIES = (30, 100)


def shift_image(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Move the content of `(height, width, ...)` down and right by this many pixels, repeating the edge."""
    height, width = image.shape[:2]
    if rows:
        image = image[np.clip(np.arange(height) - rows, 0, height - 1)]
    if columns:
        image = image[:, np.clip(np.arange(width) - columns, 0, width - 1)]
    return image


@dataclass(frozen=True)
class Variation:
    """The result of one draw; the default does not change the image.

    Args:
        flip: mirror left and right.
        down, right: pixels by which the content moves, repeating the edge.
        crop: position of the random crop in its margins, two shares in [0, 1]; `None` for no random crop.
        sigma: deviation of a Gaussian blur, pixels.
        quality: JPEG quality, or `None`.
    """

    flip: bool = False
    down: int = 0
    right: int = 0
    crop: tuple[float, float] | None = None
    sigma: float = 0.0
    quality: int | None = None

    def move(self, values: np.ndarray) -> np.ndarray:
        """Shift and mirror `(height, width, ...)`; masks move like images."""
        values = shift_image(values, self.down, self.right)
        return np.ascontiguousarray(values[:, ::-1] if self.flip else values)

    def picture(self, image: np.ndarray, crop_side: int | None = None) -> Image.Image:
        """Return the augmented image.

        Args:
            image: uint8 `(height, width, 3)`.
            crop_side: side of the random crop in pixels; the shorter side is first resized to it.
        """
        image = self.move(image)
        if self.sigma > 0:
            tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
            kernel = 2 * int(4.0 * self.sigma + 0.5) + 1  # four deviations on each side, as in SciPy
            reach = 2 * min(tensor.shape[1:]) - 1  # a reflected edge cannot be longer than the image
            tensor = transforms.gaussian_blur(tensor, [min(kernel, reach)] * 2, [self.sigma] * 2)
            image = tensor.permute(1, 2, 0).numpy()
        picture = Image.fromarray(np.ascontiguousarray(image))
        if self.quality is not None:
            stream = io.BytesIO()
            picture.save(stream, format="JPEG", quality=self.quality)
            picture = load_image(stream.getvalue())
        if self.crop is not None and crop_side is not None:
            picture = _random_crop(picture, crop_side, self.crop)
        return picture


@dataclass(frozen=True)
class PictureVariation:
    """Augmentations that a training image can get.

    Args:
        mirror: mirror every second image.
        shift_cell: shift by -1, 0 or 1 times this many pixels in both directions.
        random_crop: resize the shorter side to the model's image size and crop a random square.
        blur: probability of a Gaussian blur, its deviation uniform in 0 to 3 pixels.
        jpeg: probability of JPEG at one of `JPEG_QUALITIES`.
    """

    mirror: bool = False
    shift_cell: int = 0
    random_crop: bool = False
    blur: float = 0.0
    jpeg: float = 0.0

    def draw(self, generator: np.random.Generator) -> Variation:
        """Make one draw. Trained checkpoints depend on the order of the random numbers: add new ones at the end."""
        flip = self.mirror and bool(generator.random() < 0.5)
        down, right = (self.shift_cell * int(step) for step in generator.integers(-1, 2, size=2))
        crop, sigma, quality = None, 0.0, None
        if self.random_crop:
            crop = (float(generator.random()), float(generator.random()))
        if self.blur and generator.random() < self.blur:
            sigma = float(generator.uniform(0.0, LARGEST_SIGMA))
        if self.jpeg and generator.random() < self.jpeg:
            quality = int(generator.choice(JPEG_QUALITIES))
        return Variation(flip, down, right, crop, sigma, quality)


def _random_crop(picture: Image.Image, side: int, place: tuple[float, float]) -> Image.Image:
    """Resize the shorter side to `side` (bicubic, the longer one rounded down), then crop a square at `place`."""
    width, height = picture.size
    short = min(width, height)
    size = (int(side * width / short), int(side * height / short))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    # All offsets 0..margin are equally likely.
    top, left = (
        min(int(share * (length - side + 1)), length - side) for share, length in zip(place, size[::-1], strict=True)
    )
    return picture.crop((left, top, left + side, top + side))
