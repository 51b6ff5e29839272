"""Where the mask label of a training picture comes from, in the geometry in which the model sees the picture."""

from __future__ import annotations

from typing import Any, Protocol

import datasets
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from deepfake_detectors.train.twin_masks import TwinMasks
from deepfake_detectors.train.variation import Variation

__all__ = ["ColumnMasks", "MaskLabels", "MaskShaper", "NoMasks", "PairMasks", "mask_side"]

UNKNOWN = -1.0  # the losses leave it out


class MaskLabels(Protocol):
    """Mask labels of the rows of a split."""

    def label(self, row: int, variation: Variation) -> np.ndarray:
        """float32 `(size, size)` in [0, 1], or -1 everywhere where the mask is not known; varied as the picture."""


class MaskShaper:
    """A mask over a picture to the model's mask size, through the resizing and cropping of the image processor.

    Args:
        image_processor: the family's own.
        size: side of a mask label.
    """

    def __init__(self, image_processor: Any, size: int) -> None:
        self.image_processor, self.size = image_processor, size

    def __call__(self, mask: np.ndarray, variation: Variation) -> np.ndarray:
        """`(height, width)` in [0, 1], of the unvaried picture, to float32 `(size, size)`."""
        grey = Image.fromarray((variation.move(mask) * 255).round().astype(np.uint8)).convert("RGB")
        seen = self.image_processor(grey, do_normalize=False, resample=Image.Resampling.BILINEAR, return_tensors="pt")[
            "pixel_values"
        ]
        return F.adaptive_avg_pool2d(seen[:, :1], self.size)[0, 0].clamp(0.0, 1.0).numpy()

    def constant(self, value: float) -> np.ndarray:
        """The same value everywhere."""
        return np.full((self.size, self.size), value, dtype=np.float32)


class PairMasks:
    """The difference between a fake and the real frame behind it, see `TwinMasks`."""

    def __init__(self, rows: datasets.Dataset, size: int) -> None:
        self.twins = TwinMasks(rows, size)

    def label(self, row: int, variation: Variation) -> np.ndarray:
        return self.twins.label(row, variation.flip, variation.down, variation.right)


class ColumnMasks:
    """The data set's own masks, white where a picture was changed; a fake without one is unknown.

    Args:
        rows: with the columns `label` and `column`.
        column: name of the picture column.
        shaper: of the model.

    Raises:
        ValueError: if there is no such column.
    """

    def __init__(self, rows: datasets.Dataset, column: str, shaper: MaskShaper) -> None:
        if column not in rows.column_names:
            raise ValueError(f"mask_column is {column!r}, but the data set has {', '.join(rows.column_names)}.")
        self.rows, self.column, self.shaper = rows, column, shaper
        self.labels = rows["label"][:]

    def label(self, row: int, variation: Variation) -> np.ndarray:
        if self.labels[row] == 0:
            return self.shaper.constant(0.0)
        mask = self.rows[row][self.column]
        if mask is None:
            return self.shaper.constant(UNKNOWN)
        return self.shaper(np.asarray(mask.convert("L"), dtype=np.float32) / 255, variation)


class NoMasks:
    """Nothing is known of the data set's fakes; real pictures are all zero."""

    def __init__(self, labels: list[int], shaper: MaskShaper) -> None:
        self.labels, self.shaper = labels, shaper

    def label(self, row: int, variation: Variation) -> np.ndarray:
        return self.shaper.constant(UNKNOWN if self.labels[row] == 1 else 0.0)


def mask_side(model: torch.nn.Module) -> int | None:
    """Side of the mask labels that a model learns from, or `None` if it has no mask head."""
    sides: set[Any] = {module.mask_size for module in model.modules() if getattr(module, "mask_size", None)}
    if getattr(model, "can_localize", False):
        sides.add(model.config.image_size)
    if len(sides) > 1:
        raise ValueError(f"{type(model).__name__} has mask heads of sides {sorted(sides)}, expected at most one.")
    return sides.pop() if sides else None
