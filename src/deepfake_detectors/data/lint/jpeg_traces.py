"""How a JPEG was saved, read from its own tables."""

from __future__ import annotations

import hashlib
import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

__all__ = ["jpeg_traces"]

SAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


def jpeg_traces(image: Any) -> dict[str, Any]:
    """Traces of the encoder.

    Args:
        image: an opened `JpegImageFile`.

    Returns:
        `jpeg_quality`: 1 to 100, the libjpeg setting whose luminance table is nearest to the file's; `jpeg_tables`:
        digest of all quantisation tables; `subsampling`: such as `"4:2:0"`; `progressive`: bool.
    """
    tables = image.quantization
    luminance = np.asarray(tables[min(tables)], dtype=np.float64)
    distances = np.abs(_standard_tables() - luminance).mean(axis=1)
    joined = repr(sorted((number, list(table)) for number, table in tables.items()))
    return {
        "jpeg_quality": int(distances.argmin()) + 1,
        "jpeg_tables": hashlib.sha256(joined.encode()).hexdigest()[:8],
        "subsampling": SAMPLINGS.get(JpegImagePlugin.get_sampling(image), "other"),
        "progressive": bool(image.info.get("progressive")),
    }


@cache
def _standard_tables() -> np.ndarray:
    """libjpeg's luminance tables of the qualities 1 to 100, as `(100, 64)`, from the encoder itself."""
    tables = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        file.seek(0)
        with JpegImagePlugin.JpegImageFile(file) as image:
            tables.append(image.quantization[0])
    return np.asarray(tables, dtype=np.float64)
