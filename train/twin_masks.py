"""Free mask labels: where a fake and the real frame behind it are aligned, their difference shows what was changed."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import torch
from torch.nn import functional as F

from deepfake_detectors.data.twin_difference import CELL, average_cells, difference_map

__all__ = ["TwinMasks", "shift_image"]


def shift_image(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Move the content of `(height, width, ...)` down and right by so many pixels, repeating the edge."""
    height, width = image.shape[:2]
    if rows:
        image = image[np.clip(np.arange(height) - rows, 0, height - 1)]
    if columns:
        image = image[:, np.clip(np.arange(width) - columns, 0, width - 1)]
    return image


class TwinMasks:
    """Mask labels for the rows of a split.

    Real rows are all zero. A fake's twin is the real row of the same target video and the same size; without one its
    label is -1 everywhere, which the loss leaves out.

    Args:
        rows: with the columns `image`, `label`, `target_id`. Rows of one target video must show the same frame.
        size: side of a mask label. It divides the picture's side divided by 4 (averaged), or is a multiple of that
            (interpolated, for models whose mask is as large as the picture).
    """

    def __init__(self, rows: datasets.Dataset, size: int) -> None:
        self.rows, self.size = rows, size
        self.labels = rows["label"][:]
        targets = rows["target_id"][:]
        real_of = {target: index for index, target in enumerate(targets) if self.labels[index] == 0}
        self.twins = [
            real_of.get(target) if label == 1 else None for target, label in zip(targets, self.labels, strict=True)
        ]
        self._kept: dict[int, np.ndarray | None] = {}

    def label(self, index: int, flip: bool = False, rows: int = 0, columns: int = 0) -> np.ndarray:
        """float32 `(size, size)` in [0, 1], or all -1; moved and mirrored as the picture is (moved first)."""
        if self.labels[index] == 0:
            return np.zeros((self.size, self.size), dtype=np.float32)
        if index not in self._kept:
            self._kept[index] = self._difference(index)
        difference = self._kept[index]
        if difference is None:
            return np.full((self.size, self.size), -1.0, dtype=np.float32)
        difference = shift_image(difference, round(rows / CELL), round(columns / CELL))
        difference = difference[:, ::-1] if flip else difference
        if self.size > len(difference):
            return _stretch(difference, self.size)
        return average_cells(difference, difference.shape[0] // self.size)

    def _difference(self, index: int) -> np.ndarray | None:
        twin = self.twins[index]
        if twin is None:
            return None
        fake, real = self._pixels(index), self._pixels(twin)
        if fake.shape != real.shape:
            return None
        height, width = fake.shape[:2]
        fits = height % (CELL * self.size) == 0 or (height % CELL == 0 and self.size % (height // CELL) == 0)
        if height != width or not fits:
            raise ValueError(
                f"Picture {index} has {width} x {height} pixels; mask labels of {self.size} x {self.size} cells need "
                f"a square side that is a multiple of {CELL * self.size}, or {CELL} times a divisor of {self.size}. "
                "Train without twin_masks."
            )
        return difference_map(fake, real)

    def _pixels(self, index: int) -> Any:
        return np.asarray(self.rows[index]["image"].convert("RGB"))


def _stretch(values: np.ndarray, size: int) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    return F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)[0, 0].numpy()
