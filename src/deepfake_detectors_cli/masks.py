"""Writes what a localising detector found: the raw mask, and the mask laid over the picture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from deepfake_detectors.modeling.image_loading import load_image

__all__ = ["overlay", "save_masks"]

RED = np.array([255.0, 0.0, 0.0])
OPACITY = 0.6  # of what is surely manipulated; the picture stays readable under it
OUTLINE_FROM = 128  # half of 255: more likely manipulated than not
YELLOW = (255, 235, 0)


def overlay(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture in grey, manipulated area in red by its probability, outlined in yellow from one half on.

    Args:
        picture: any mode.
        mask: mode `L` of the same size, 255 is surely manipulated.
    """
    grey = np.asarray(picture.convert("L").convert("RGB"), dtype=np.float64)
    strength = (OPACITY / 255) * np.asarray(mask, dtype=np.float64)[..., None]
    painted = Image.fromarray((grey * (1 - strength) + RED * strength).round().astype(np.uint8))
    inside = mask.point(lambda value: 255 if value >= OUTLINE_FROM else 0)
    width = 2 * max(1, round(min(picture.size) / 200)) + 1
    # The border of the area: what growing it adds.
    edge = np.asarray(inside.filter(ImageFilter.MaxFilter(width))) != np.asarray(inside)
    painted.paste(YELLOW, mask=Image.fromarray(edge))
    return painted


def save_masks(rows: Iterator[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Write `NAME.mask.png` and `NAME.overlay.png` of each row that has a mask, and name them in the row.

    Args:
        rows: of the pipeline, with `input` (file or URL); `mask` is taken out.
        folder: made if needed.
    """
    taken: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        mask = row.pop("mask", None)
        if mask is not None:
            name = _free_name(row["input"], taken)
            paths = {kind: folder / f"{name}.{kind}.png" for kind in ("mask", "overlay")}
            mask.save(paths["mask"])
            overlay(load_image(row["input"]), mask).save(paths["overlay"])
            row = {**row, **{kind: str(path) for kind, path in paths.items()}}
        yield row


def _free_name(source: str, taken: set[str]) -> str:
    """A file name that tells the picture, unlike those before (pictures of several folders may share a name)."""
    stem = re.sub(r"[^\w.-]+", "_", Path(source.split("?")[0]).stem) or "picture"
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.lower())
    return name
