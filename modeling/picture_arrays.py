"""Pictures given as arrays, to the bytes that the official processors expect."""

from typing import Any

import numpy as np
import torch

__all__ = ["as_bytes"]


def as_bytes(image: Any, rounded: bool = False) -> Any:
    """uint8 arrays and PIL pictures as they are; floats in [0, 1] to uint8.

    Args:
        image: a PIL picture, a numpy array or a torch tensor.
        rounded: round to the nearest level instead of cutting off; both are exact for 8-bit pictures over 255.

    Raises:
        ValueError: for another dtype, or floats outside [0, 1] (NaN too), naming both.
    """
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        return image
    array = np.asarray(image)
    if array.dtype == np.uint8:
        return array
    # The negated form also refuses NaN.
    if not np.issubdtype(array.dtype, np.floating) or not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            f"An image array of dtype {array.dtype} with values from {array.min()} to {array.max()} was given; "
            "accepted are uint8 in 0..255 and floats in 0..1."
        )
    levels = array * 255
    return (levels.round() if rounded else levels).astype(np.uint8)
