"""What can be measured about an image without looking at what it shows: its file, its encoder, its pixels."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, JpegImagePlugin

from deepfake_detectors.modeling.image_loading import MAX_PIXELS, load_image, load_stored_image
from deepfake_detectors.modeling.image_sources import open_regular_file

__all__ = ["SCHEMA", "Picture", "clip_traces", "jpeg_traces", "measure"]

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
SAME_FORMAT = {"MPO": "JPEG"}  # what phones save under .jpg: a JPEG with further images behind it
HASH_SIDE = 8
SAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


@dataclass(slots=True)
class Picture:
    """An image and what its dataset says about it.

    Attributes:
        id: unique in its dataset.
        split: name of the split.
        label: `real` or `fake`.
        content: file, bytes, or pixels that are not in an image file (frames of clips and arrays); `None` if it could
            not be read.
        name: file name, for its extension.
        columns: `manipulation`, `video_id`, `group_id`, `target_id`, `source_id`, as far as known.
        error: why there is no `content`.
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


def measure(picture: Picture, max_pixels: int = MAX_PIXELS) -> dict[str, Any]:
    """Return one row of `SCHEMA`. An image that cannot be decoded gives a row with `error`, never an exception."""
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {name: picture.columns.get(name) for name in IDENTITY}
    row |= {"id": picture.id, "split": picture.split, "label": picture.label, "error": picture.error}
    row |= picture.traces
    row["extension"] = PurePath(picture.name).suffix.lower() or None if picture.name else None
    try:
        content = picture.content
        if isinstance(content, Path):
            with open_regular_file(content, str(content)) as file:
                content = file.read()
        if isinstance(content, bytes):
            row |= {"bytes": len(content), "file_digest": hashlib.sha256(content).hexdigest()[:32]}
            image = load_stored_image(content, max_pixels=max_pixels)
            row |= _file_traces(image) | _pixel_traces(image)
        elif content is not None:
            row |= _pixel_traces(content if isinstance(content, Image.Image) else Image.fromarray(content))
    except (OSError, ValueError) as error:
        row["error"] = f"{type(error.__cause__ or error).__name__}: {error}"
    return row


def _file_traces(image: Any) -> dict[str, Any]:
    form = SAME_FORMAT.get(image.format, image.format)
    traces = {
        "format": form,
        "exif_tags": len(image.getexif()),
        "metadata": " ".join(sorted(map(str, set(image.info) - ORDINARY_INFO))),
    }
    return traces | jpeg_traces(image) if form == "JPEG" else traces


def _pixel_traces(image: Any) -> dict[str, Any]:
    import imagehash

    pixels = load_image(image)
    bits = imagehash.phash(pixels, hash_size=HASH_SIDE).hash
    return {
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "pixel_digest": hashlib.sha256(repr(pixels.size).encode() + pixels.tobytes()).hexdigest()[:32],
        "perceptual_hash": int.from_bytes(np.packbits(bits).tobytes(), "big"),
    }


def jpeg_traces(image: Any) -> dict[str, Any]:
    """Return how a JPEG was saved, according to its own tables.

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
        image: Any = JpegImagePlugin.JpegImageFile(file)
        with image:
            tables.append(image.quantization[0])
    return np.asarray(tables, dtype=np.float64)


@lru_cache(maxsize=64)
def clip_traces(path: Path) -> dict[str, Any]:
    """Return how a clip was encoded: its frames are compared by it as images are by their file.

    Args:
        path: a clip.

    Returns:
        `format`: container and codec, such as `"mov h264"` (FFmpeg's name for MP4, too); `frame_rate`: frames per
        second; `bytes`: of the file per frame; `metadata`: names of its tags. Empty for a clip that cannot be opened;
        its builder reports why.
    """
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
            return {
                "format": f"{container.format.name.split(',')[0]} {stream.codec_context.name}",
                "frame_rate": f"{float(stream.average_rate or 0):.3g}",
                "bytes": path.stat().st_size // max(frames, 1),
                "metadata": " ".join(sorted({*container.metadata, *stream.metadata})),
            }
    except (av.FFmpegError, IndexError):
        return {}
