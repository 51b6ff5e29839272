"""Mask labels of training images: their sources, and their geometry as seen by the model."""

from __future__ import annotations

from typing import Any, Protocol

import datasets
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from deepfake_detectors.data.loading import undecoded
from deepfake_detectors.data.twin_difference import CELL, average_cells, difference_map
from deepfake_detectors.modeling.image_loading import load_image, load_mask, rgb_image
from deepfake_detectors.train.augmentation import Variation, shift_image

__all__ = ["ColumnMasks", "MaskLabels", "MaskShaper", "NoMasks", "PairMasks", "TwinMasks", "mask_side"]


UNKNOWN = -1.0  # ignored by the losses


class TwinMasks:
    """Mask labels for the rows of a split, from real twins.

    Real rows are all zero. The twin of a fake is the real row with the same target video and size; without one the
    label is -1 everywhere, which the loss ignores.

    Args:
        rows: with the columns `image`, `label`, `target_id`. Rows with the same target video must show the same frame.
        size: side of a mask label. It divides the image's side divided by 4 (averaged), or is a multiple of that
            (interpolated, for models whose mask is as large as the image).
    """

    def __init__(self, rows: datasets.Dataset, size: int) -> None:
        self.rows, self.size = undecoded(rows), size
        self.labels = rows["label"][:]
        targets = rows["target_id"][:]
        real_of = {target: index for index, target in enumerate(targets) if self.labels[index] == 0}
        self.twins = [
            real_of.get(target) if label == 1 else None for target, label in zip(targets, self.labels, strict=True)
        ]
        self._kept: dict[int, np.ndarray | None] = {}

    def label(self, index: int, flip: bool = False, rows: int = 0, columns: int = 0) -> np.ndarray:
        """float32 `(size, size)` in [0, 1], or all -1; shifted and mirrored like the image (shifted first)."""
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
                f"Image {index} has {width} x {height} pixels; mask labels of {self.size} x {self.size} cells need "
                f"a square side that is a multiple of {CELL * self.size}, or {CELL} times a divisor of {self.size}. "
                "Train without twin_masks."
            )
        return difference_map(fake, real)

    def _pixels(self, index: int) -> Any:
        return np.asarray(load_image(self.rows[index]["image"]))


def _stretch(values: np.ndarray, size: int) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    return F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)[0, 0].numpy()


class MaskLabels(Protocol):
    """Base class for mask labels of the rows of a split."""

    def label(self, row: int, variation: Variation) -> np.ndarray:
        """float32 `(size, size)` in [0, 1], or -1 everywhere if the mask is unknown; augmented like the image."""


class MaskShaper:
    """Converts a mask to the model's mask size, with the resizing and cropping of the image processor.

    Args:
        image_processor: the family's image processor.
        size: side of a mask label.
    """

    def __init__(self, image_processor: Any, size: int) -> None:
        self.image_processor, self.size = image_processor, size

    def __call__(self, mask: np.ndarray, variation: Variation) -> np.ndarray:
        """Convert `(height, width)` in [0, 1], for the unaugmented image, to float32 `(size, size)`."""
        grey = rgb_image(Image.fromarray((variation.move(mask) * 255).round().astype(np.uint8)))
        seen = self.image_processor(grey, do_normalize=False, resample=Image.Resampling.BILINEAR, return_tensors="pt")[
            "pixel_values"
        ]
        return F.adaptive_avg_pool2d(seen[:, :1], self.size)[0, 0].clamp(0.0, 1.0).numpy()

    def constant(self, value: float) -> np.ndarray:
        """Return a label with the same value everywhere."""
        return np.full((self.size, self.size), value, dtype=np.float32)


class PairMasks:
    """Return the difference between a fake and its real frame, see `TwinMasks`."""

    def __init__(self, rows: datasets.Dataset, size: int) -> None:
        self.twins = TwinMasks(rows, size)

    def label(self, row: int, variation: Variation) -> np.ndarray:
        return self.twins.label(row, variation.flip, variation.down, variation.right)


class ColumnMasks:
    """The dataset's own masks, white where manipulated; fakes without a mask are unknown.

    Args:
        rows: with the columns `label` and `column`.
        column: name of the image column.
        shaper: the model's mask shaper.

    Raises:
        ValueError: if the column does not exist.
    """

    def __init__(self, rows: datasets.Dataset, column: str, shaper: MaskShaper) -> None:
        if column not in rows.column_names:
            raise ValueError(f"mask_column is {column!r}, but the dataset has {', '.join(rows.column_names)}.")
        self.rows, self.column, self.shaper = undecoded(rows), column, shaper
        self.labels = rows["label"][:]

    def label(self, row: int, variation: Variation) -> np.ndarray:
        if self.labels[row] == 0:
            return self.shaper.constant(0.0)
        mask = self.rows[row][self.column]
        if mask is None:
            return self.shaper.constant(UNKNOWN)
        return self.shaper(np.asarray(load_mask(mask), dtype=np.float32) / 255, variation)


class NoMasks:
    """Masks for unknown fakes; real images are all zero."""

    def __init__(self, labels: list[int], shaper: MaskShaper) -> None:
        self.labels, self.shaper = labels, shaper

    def label(self, row: int, variation: Variation) -> np.ndarray:
        return self.shaper.constant(UNKNOWN if self.labels[row] == 1 else 0.0)


def mask_side(model: torch.nn.Module) -> int | None:
    """Return the side of a model's mask labels, or `None` without a mask head."""
    sides: set[Any] = {module.mask_size for module in model.modules() if getattr(module, "mask_size", None)}
    if getattr(model, "can_localize", False):
        sides.add(model.config.image_size)
    if len(sides) > 1:
        raise ValueError(f"{type(model).__name__} has mask heads of sides {sorted(sides)}, expected at most one.")
    return sides.pop() if sides else None
