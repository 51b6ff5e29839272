"""What can be measured about an image without looking at what it shows: its file, its encoder, its pixels."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path, PurePath
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, JpegImagePlugin

from deepfake_detectors.modeling.image_loading import MAX_PIXELS, load_stored_image, upright_rgb
from deepfake_detectors.modeling.image_sources import open_regular_file

__all__ = ["SCHEMA", "Measuring", "Picture", "clip_traces", "jpeg_traces", "measure"]

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
    """Return one row of `SCHEMA`. A picture that cannot be decoded gives a row with `error`, never an exception."""
    return Measuring(max_pixels).rows([picture])[0]


class Measuring:
    """Measures pictures; a file that it has seen lately is not decoded again. Threads may share it.

    Args:
        max_pixels: width times height of an image that is decoded.
        kept: files whose measurements are kept, for pictures that stand in several rows.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS, kept: int = 8192) -> None:
        self.max_pixels, self.kept = max_pixels, kept
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = Lock()

    def rows(self, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        """Return the rows of some pictures, as `measure`; several at once are faster than one by one."""
        rows: list[dict[str, Any]] = []
        fresh: dict[str, dict[str, Any]] = {}  # what was decoded in this call, by the digest of its file
        measured: list[tuple[dict[str, Any], dict[str, Any]]] = []
        hashing = _Hashing()
        for picture in pictures:
            row: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {name: picture.columns.get(name) for name in IDENTITY}
            row |= {"id": picture.id, "split": picture.split, "label": picture.label, "error": picture.error}
            row |= picture.traces
            row["extension"] = PurePath(picture.name).suffix.lower() or None if picture.name else None
            rows.append(row)
            try:
                content = picture.content
                if isinstance(content, Path):
                    with open_regular_file(content, str(content)) as file:
                        content = file.read()
                if isinstance(content, bytes):
                    digest = hashlib.sha256(content).hexdigest()[:32]
                    row |= {"bytes": len(content), "file_digest": digest}
                    traces = fresh.get(digest) or self._recall(digest)
                    if traces is None:
                        image = load_stored_image(content, max_pixels=self.max_pixels)
                        traces = fresh[digest] = _measured(image, _file_traces(image), hashing)
                elif content is not None:
                    image = content if isinstance(content, Image.Image) else Image.fromarray(content)
                    traces = _measured(image, {}, hashing)
                else:
                    continue
                measured.append((row, traces))
            except (OSError, ValueError) as error:
                row["error"] = f"{type(error.__cause__ or error).__name__}: {error}"
        hashing.finish()
        for row, traces in measured:
            row |= traces
        self._keep(fresh)
        return rows

    def _recall(self, digest: str) -> dict[str, Any] | None:
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
            return self._known.get(digest)

    def _keep(self, fresh: dict[str, dict[str, Any]]) -> None:
        with self._lock:
            self._known |= fresh
            while len(self._known) > self.kept:
                self._known.popitem(last=False)


class _Hashing:
    """Perceptual hashes, of several pictures at a time.

    `imagehash.phash` makes a picture grey and 32 pixels wide and high, which takes most of its time. Pillow resizes
    each band of a picture on its own, and four bands in less than three times the time of one, so the grey pictures
    of one size are resized as the bands of one.
    """

    BANDS, PIXELS = 4, 2**22  # pictures, or pixels, that wait at most

    def __init__(self) -> None:
        self._waiting: list[tuple[dict[str, Any], Image.Image]] = []

    def add(self, traces: dict[str, Any], pixels: Image.Image) -> None:
        """Put `perceptual_hash` of an RGB picture into its traces, at the latest at `finish`."""
        grey = pixels.convert("L")
        if self._waiting and self._waiting[0][1].size != grey.size:
            self.finish()
        self._waiting.append((traces, grey))
        if len(self._waiting) == self.BANDS or len(self._waiting) * grey.width * grey.height > self.PIXELS:
            self.finish()

    def finish(self) -> None:
        """Hash what waits."""
        import imagehash

        greys = [grey for _, grey in self._waiting]
        side = 4 * HASH_SIDE
        if len(greys) > 1:
            bands = greys + greys[-1:] * (self.BANDS - len(greys))
            # CMYK only because it has four bands that Pillow does not mix.
            greys = list(Image.merge("CMYK", bands).resize((side, side), Image.Resampling.LANCZOS).split())
        for (traces, _), grey in zip(self._waiting, greys, strict=False):
            bits = imagehash.phash(grey, hash_size=HASH_SIDE).hash
            traces["perceptual_hash"] = int.from_bytes(np.packbits(bits).tobytes(), "big")
        self._waiting = []


def _file_traces(image: Any) -> dict[str, Any]:
    form = SAME_FORMAT.get(image.format, image.format)
    traces = {
        "format": form,
        "exif_tags": len(image.getexif()),
        "metadata": " ".join(sorted(map(str, set(image.info) - ORDINARY_INFO))),
    }
    return traces | jpeg_traces(image) if form == "JPEG" else traces


def _measured(image: Any, traces: dict[str, Any], hashing: _Hashing) -> dict[str, Any]:
    """Put what the pixels say into `traces`."""
    pixels = upright_rgb(image)
    digest = hashlib.sha256(repr(pixels.size).encode())
    digest.update(pixels.tobytes())
    traces |= {
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "pixel_digest": digest.hexdigest()[:32],
    }
    hashing.add(traces, pixels)
    return traces


def jpeg_traces(image: Any) -> dict[str, Any]:
    """Return how a JPEG was saved, according to its own tables.

    Args:
        image: an opened `JpegImageFile`.

    Returns:
        `jpeg_quality`: 1 to 100, the libjpeg setting whose luminance table is nearest to the file's; `jpeg_tables`:
        digest of all quantisation tables; `subsampling`: such as `"4:2:0"`; `progressive`: bool.
    """
    quality, tables = _table_traces(tuple(sorted((key, tuple(table)) for key, table in image.quantization.items())))
    return {
        "jpeg_quality": quality,
        "jpeg_tables": tables,
        "subsampling": SAMPLINGS.get(JpegImagePlugin.get_sampling(image), "other"),
        "progressive": bool(image.info.get("progressive")),
    }


@lru_cache(maxsize=1024)  # a set has few different ones
def _table_traces(tables: tuple[tuple[int, tuple[int, ...]], ...]) -> tuple[int, str]:
    """Nearest quality, and digest, of the quantisation tables of a JPEG, sorted by their number."""
    distances = np.abs(_standard_tables() - np.asarray(tables[0][1], dtype=np.float64)).mean(axis=1)
    joined = repr([(number, list(table)) for number, table in tables])
    return int(distances.argmin()) + 1, hashlib.sha256(joined.encode()).hexdigest()[:8]


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
