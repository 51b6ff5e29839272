"""The difference between a fake and its aligned real frame shows what was changed."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["CELL", "average_cells", "difference_map", "difference_mask"]

CELL = 4  # pixels per side that are averaged first, against compression noise
SMOOTHING = 5  # cells per side of the second average
LOW, HIGH = 5.0, 15.0  # grey levels that count as untouched and as surely changed; compression alone makes about 5


def difference_map(fake: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Share of change per cell of 4 x 4 pixels.

    Args:
        fake: uint8 `(height, width, 3)`.
        real: the same, of the frame that was manipulated.

    Returns:
        float32 `(height / 4, width / 4)` in [0, 1].
    """
    difference = np.abs(fake.astype(np.float32) - real.astype(np.float32)).mean(axis=2)
    cells = average_cells(difference, CELL)
    padded = np.pad(cells, SMOOTHING // 2, mode="edge")
    smooth = np.lib.stride_tricks.sliding_window_view(padded, (SMOOTHING, SMOOTHING)).mean(axis=(2, 3))
    return np.clip((smooth - LOW) / (HIGH - LOW), 0.0, 1.0).astype(np.float32)


def difference_mask(fake: np.ndarray, real: np.ndarray) -> Image.Image:
    """`difference_map` as an image of mode `L`, 0-255, at the size of the images; a rest of fewer than 4 pixels at
    the right and lower edge repeats what is beside it."""
    height, width = fake.shape[:2]
    if min(height, width) < CELL:
        raise ValueError(f"An image of {width}x{height} pixels is too small for cells of {CELL}x{CELL}.")
    whole = [side - side % CELL for side in (height, width)]
    cells = difference_map(*(picture[: whole[0], : whole[1]] for picture in (fake, real)))
    grey = np.repeat(np.repeat((cells * 255).round().astype(np.uint8), CELL, axis=0), CELL, axis=1)
    return Image.fromarray(np.pad(grey, ((0, height - whole[0]), (0, width - whole[1])), mode="edge"))


def average_cells(values: np.ndarray, cell: int) -> np.ndarray:
    """Mean of every `cell` x `cell` square of `(height, width)`, both multiples of it."""
    height, width = values.shape
    return values.reshape(height // cell, cell, width // cell, cell).mean(axis=(1, 3))
