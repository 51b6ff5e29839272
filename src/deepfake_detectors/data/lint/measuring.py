"""What can be said about one picture without looking at what it shows."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from deepfake_detectors.data.lint.jpeg_traces import jpeg_traces

__all__ = ["SCHEMA", "Picture", "measure"]

IDENTITY = ("id", "split", "label", "manipulation", "video_id", "group_id", "target_id", "source_id")
TEXT, INTEGER = pa.string(), pa.int64()
SCHEMA = pa.schema(
    [(name, TEXT) for name in IDENTITY]
    + [
        ("extension", TEXT),
        ("bytes", INTEGER),
        ("format", TEXT),
        ("mode", TEXT),
        ("width", INTEGER),
        ("height", INTEGER),
        ("jpeg_quality", INTEGER),
        ("jpeg_tables", TEXT),
        ("subsampling", TEXT),
        ("progressive", pa.bool_()),
        ("exif_tags", INTEGER),
        ("metadata", TEXT),
        ("frame_rate", TEXT),
        ("file_digest", TEXT),
        ("pixel_digest", TEXT),
        ("perceptual_hash", pa.uint64()),
        ("error", TEXT),
    ]
)
# In every JPEG, or counted on their own.
ORDINARY_INFO = frozenset({"jfif", "jfif_version", "jfif_unit", "jfif_density", "progressive", "progression", "exif"})
SAME_FORMAT = {"MPO": "JPEG"}  # what phones save under .jpg: a JPEG with further pictures behind it
HASH_SIDE = 8


@dataclass(slots=True)
class Picture:
    """A picture and what its data set says about it.

    Attributes:
        id: unique in its data set.
        split: name of the split.
        label: `real` or `fake`.
        content: file, bytes, or pixels that are in no picture file (frames of clips and arrays); `None` if it could
            not be read.
        name: file name, for its extension.
        columns: `manipulation`, `video_id`, `group_id`, `target_id`, `source_id`, as far as they are known.
        error: why there is no content.
        traces: what is known beforehand of how it was saved, columns of `SCHEMA`.
    """

    id: str
    split: str
    label: str
    content: Path | bytes | Image.Image | np.ndarray | None
    name: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    traces: dict[str, Any] = field(default_factory=dict)


def measure(picture: Picture) -> dict[str, Any]:
    """One row of `SCHEMA`. A picture that cannot be decoded gives a row with `error`, never an exception."""
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {name: picture.columns.get(name) for name in IDENTITY}
    row |= {"id": picture.id, "split": picture.split, "label": picture.label, "error": picture.error}
    row |= picture.traces
    row["extension"] = PurePath(picture.name).suffix.lower() or None if picture.name else None
    try:
        content = picture.content.read_bytes() if isinstance(picture.content, Path) else picture.content
        if isinstance(content, bytes):
            row |= {"bytes": len(content), "file_digest": hashlib.sha256(content).hexdigest()[:32]}
            with Image.open(io.BytesIO(content)) as image:
                row |= _file_traces(image) | _pixel_traces(image)
        elif content is not None:
            row |= _pixel_traces(content if isinstance(content, Image.Image) else Image.fromarray(content))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def _file_traces(image: Any) -> dict[str, Any]:
    image.load()  # first: what follows the pixels, as text in a PNG may, counts too
    form = SAME_FORMAT.get(image.format, image.format)
    traces = {
        "format": form,
        "exif_tags": len(image.getexif()),
        "metadata": " ".join(sorted(map(str, set(image.info) - ORDINARY_INFO))),
    }
    return traces | jpeg_traces(image) if form == "JPEG" else traces


def _pixel_traces(image: Any) -> dict[str, Any]:
    import imagehash

    pixels = image.convert("RGB")
    bits = imagehash.phash(pixels, hash_size=HASH_SIDE).hash
    return {
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "pixel_digest": hashlib.sha256(repr(pixels.size).encode() + pixels.tobytes()).hexdigest()[:32],
        "perceptual_hash": int.from_bytes(np.packbits(bits).tobytes(), "big"),
    }
