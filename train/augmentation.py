"""How an image is varied when it comes up in training: mirrored, shifted, cropped, blurred, compressed."""

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
# A two-element list that the official M2F2-Det code samples as two choices, not as a range.
JPEG_QUALITIES = (30, 100)


def shift_image(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Move the content of `(height, width, ...)` down and right by so many pixels, repeating the edge."""
    height, width = image.shape[:2]
    if rows:
        image = image[np.clip(np.arange(height) - rows, 0, height - 1)]
    if columns:
        image = image[:, np.clip(np.arange(width) - columns, 0, width - 1)]
    return image


@dataclass(frozen=True)
class Variation:
    """What one draw got; the default changes nothing.

    Args:
        flip: mirror left and right.
        down, right: pixels by which the content moves, the edge repeated.
        crop: where the random crop lies in its margins, two shares in [0, 1]; `None` for no random crop.
        sigma: deviation of a Gaussian blur, pixels.
        quality: of JPEG, or `None`.
    """

    flip: bool = False
    down: int = 0
    right: int = 0
    crop: tuple[float, float] | None = None
    sigma: float = 0.0
    quality: int | None = None

    def move(self, values: np.ndarray) -> np.ndarray:
        """`(height, width, ...)` shifted and mirrored; masks move like images."""
        values = shift_image(values, self.down, self.right)
        return np.ascontiguousarray(values[:, ::-1] if self.flip else values)

    def picture(self, image: np.ndarray, crop_side: int | None = None) -> Image.Image:
        """The varied image.

        Args:
            image: uint8 `(height, width, 3)`.
            crop_side: side of the random crop, pixels; the short side is resized to it first.
        """
        image = self.move(image)
        if self.sigma > 0:
            tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
            kernel = 2 * int(4.0 * self.sigma + 0.5) + 1  # four deviations on either side, as SciPy cuts it
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
    """What may happen to a training image.

    Args:
        mirror: mirror every second image.
        shift_cell: shift by -1, 0 or 1 times this many pixels in both directions.
        random_crop: resize the short side to the model's image size and cut out a random square.
        blur: probability of a Gaussian blur, its deviation uniform in 0 to 3 pixels.
        jpeg: probability of JPEG at one of `JPEG_QUALITIES`.
    """

    mirror: bool = False
    shift_cell: int = 0
    random_crop: bool = False
    blur: float = 0.0
    jpeg: float = 0.0

    def draw(self, generator: np.random.Generator) -> Variation:
        """One draw. The order of the random numbers is part of every trained checkpoint: add new ones at the end."""
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
    """Short side to `side` (bicubic, the long one cut to whole pixels), then a square at `place` in the margins."""
    width, height = picture.size
    short = min(width, height)
    size = (int(side * width / short), int(side * height / short))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    # All offsets 0..margin alike.
    top, left = (
        min(int(share * (length - side + 1)), length - side) for share, length in zip(place, size[::-1], strict=True)
    )
    return picture.crop((left, top, left + side, top + side))
