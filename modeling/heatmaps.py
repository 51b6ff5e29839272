"""Heat maps over image patches and over the original image."""

import math

import numpy as np
import torch
from PIL import Image

__all__ = ["map_to_picture", "patch_map"]


def patch_map(values: torch.Tensor, from_zero: bool = False) -> torch.FloatTensor:
    """Convert patch values of square images (row by row from the top left) to maps in [0, 1].

    Args:
        values: (batch, patches).
        from_zero: keep 0 at 0, instead of mapping the smallest value to 0.

    Returns:
        (batch, side, side); all zero if all patches of an image have the same value.

    Raises:
        ValueError: if the number of patches is not a square.
    """
    side = math.isqrt(values.shape[1])
    if side * side != values.shape[1]:
        raise ValueError(f"{values.shape[1]} patches do not make a square.")
    low = torch.zeros_like(values[:, :1]) if from_zero else values.min(dim=1, keepdim=True).values
    span = values.max(dim=1, keepdim=True).values - low
    return ((values - low) / span.clamp(min=torch.finfo(values.dtype).tiny)).view(-1, side, side)


def map_to_picture(
    values: torch.Tensor, picture_size: tuple[int, int], resized: int, cropped: int, padded: bool = False
) -> Image.Image:
    """Project a map over the model's input back onto the whole image.

    Args:
        values: (rows, columns) in [0, 1].
        picture_size: width and height of the input, in pixels.
        resized: length of the shorter side after resizing.
        cropped: side of the square that was then cropped from the centre.
        padded: whether the input was first padded to a square on both sides.

    Returns:
        Mode `L`, 0-255, of size `picture_size`; zero outside the area that the model saw.
    """
    width, height = picture_size
    shorter = max(picture_size) if padded else min(picture_size)
    side = max(1, round(shorter * min(1.0, cropped / resized)))
    grey = Image.fromarray((values.float().cpu().numpy() * 255).round().astype(np.uint8))
    whole = Image.new("L", picture_size)
    whole.paste(
        grey.resize((side, side), Image.Resampling.BILINEAR), (round((width - side) / 2), round((height - side) / 2))
    )
    return whole
