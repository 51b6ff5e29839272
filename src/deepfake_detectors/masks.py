"""Write a detector's masks or heat maps, with overlays on the image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from deepfake_detectors.modeling.image_loading import load_image
from deepfake_detectors.outputs import opened_whole, refuse_inputs, short_name

__all__ = ["draw_overlay", "free_name", "save_masks"]

RED = np.array([255.0, 0.0, 0.0])
OPACITY = 0.6  # opacity of certainly manipulated areas, through which the image remains visible
OUTLINE_FROM = 128  # half of 255: more likely manipulated than not
YELLOW = (255, 235, 0)


def draw_overlay(image: Image.Image, mask: Image.Image, outline: bool = True) -> Image.Image:
    """Return the image in grey with the manipulated area in red by probability, outlined in yellow at one half.

    Args:
        image: any mode.
        mask: mode `L` of the same size, where 255 is certainly manipulated.
        outline: `False` for a heat map, whose values do not mean "manipulated".

    Returns:
        Mode `RGB`, same size.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float64)[..., None]
    strength = (OPACITY / 255) * np.asarray(mask, dtype=np.float64)[..., None]
    painted = Image.fromarray((grey * (1 - strength) + RED * strength).round().astype(np.uint8))
    if not outline:
        return painted
    inside = mask.point(lambda value: 255 if value >= OUTLINE_FROM else 0)
    width = 2 * max(1, round(min(image.size) / 200)) + 1
    # The border of the area: the pixels added by dilation.
    edge = np.asarray(inside.filter(ImageFilter.MaxFilter(width))) != np.asarray(inside)
    painted.paste(YELLOW, mask=Image.fromarray(edge))
    return painted


def save_masks(
    rows: Iterable[dict[str, Any]], sources: Iterable[Any], folder: str | Path, kind: str = "mask", **loading: Any
) -> Iterator[dict[str, Any]]:
    """Write `NAME.mask.png` and `NAME.overlay.png` for each row with a mask, and yield the rows with the two paths.

    For heat maps the files are `NAME.heatmap.png` and `NAME.heatmap-overlay.png`.

    Args:
        rows: rows of the pipeline with `localize=True`, each with `input`, the name of its image (path or URL). `mask`
            becomes the path of the mask, `overlay` is added. Rows without a mask are unchanged.
        sources: the images in the same order, as accepted by `load_image`.
        folder: folder to write, created if needed.
        kind: `"mask"` or `"heatmap"`: the field of the rows to write.
        loading: passed to `load_image`, such as `max_pixels`.

    Raises:
        ValueError: if a file to write is one of the sources.
        OSError: if a file cannot be written.
    """
    taken: set[str] = set()
    sources = list(sources)
    read = [source for source in sources if isinstance(source, str)]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for row, source in zip(rows, sources, strict=True):
        mask = row.pop(kind, None)
        if mask is not None:
            name = free_name(row["input"], taken)
            overlay = "overlay" if kind == "mask" else f"{kind}-overlay"
            drawn = draw_overlay(load_image(source, **loading), mask, outline=kind == "mask")
            images = {kind: mask, overlay: drawn}
            paths = {part: folder / f"{name}.{part}.png" for part in images}
            refuse_inputs(paths.values(), read, name="folder")
            for part, image in images.items():
                with opened_whole(paths[part], "wb") as file:
                    image.save(file, "PNG")
            row = {**row, **{part.replace("-", "_"): str(path) for part, path in paths.items()}}
        yield row


def free_name(source: str, taken: set[str]) -> str:
    """Return a unique name based on the stem of a file, because files in several folders may share one.

    Args:
        source: path or URL.
        taken: names already used, in lower case; this one is added.
    """
    stem = short_name(re.sub(r"[^\w.-]+", "_", Path(source.split("?")[0]).stem)) or "image"
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.lower())
    return name
