"""Heat maps over image patches, and over the image that the patches were cut from."""

import math

import numpy as np
import torch
from PIL import Image

__all__ = ["map_to_picture", "patch_map"]


def patch_map(values: torch.Tensor, from_zero: bool = False) -> torch.FloatTensor:
    """Values of the patches of square images, row by row from the top left, as maps in [0, 1].

    Args:
        values: (batch, patches).
        from_zero: 0 stays 0 instead of the smallest value becoming 0.

    Returns:
        (batch, side, side); all zero for an image whose patches are all alike.

    Raises:
        ValueError: for a number of patches that is not a square.
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
    """A map over what the model saw, as an image over the whole input.

    Args:
        values: (rows, columns) in [0, 1].
        picture_size: width and height of the input, in pixels.
        resized: length of the shorter side after resizing.
        cropped: side of the centred square that was cut out then.
        padded: the input was first padded to a square, around its middle.

    Returns:
        Mode `L`, 0-255, of size `picture_size`; zero where the model did not look.
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
