"""From a unit to batches of tensors: the part of the work without the model, the same in every engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

from deepfake_detectors.modeling.detection import join_prepared
from deepfake_detectors.modeling.image_loading import InputImageError, draft_side, load_draft, load_image
from deepfake_detectors.modeling.prefetching import prefetched
from deepfake_detectors.scale.sources import Entry
from deepfake_detectors.scale.units import Unit

__all__ = ["Batch", "prepared_batches"]


@dataclass
class Batch:
    """Some images of a unit.

    Attributes:
        unit: index of the unit.
        rows: place -> what is known of an image before it is judged: `id`, `source`, `sha256`, and `error` where it
            cannot be read, or `same_as`, the place of an earlier image with the same content.
        places: of the images that are judged, in the order of the tensors.
        sizes: width and height of each of them.
        features: what the processor makes of them, as the model reads a batch.
    """

    unit: int
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    features: dict[str, Any] = field(default_factory=dict)


Prepared = tuple[dict[str, Any], tuple[int, int]]


def prepared_batches(
    unit: Unit,
    processor: Any,
    batch_size: int,
    head: str | None = None,
    threads: int = 0,
    places: Sequence[int] | None = None,
    decoding: str = "full",
) -> Iterator[Batch]:
    """Read, decode and prepare a unit.

    Batches are cut by place among the different images of the unit that can be read, so that every engine, and every
    rerun, judges the same batches.

    Args:
        unit: what to read.
        processor: the detector's.
        batch_size: images in a batch.
        head: prepare for this head.
        threads: decode with as many threads, at most two batches ahead; 0 for none.
        places: only these of the unit.
        decoding: as in the pipeline.
    """
    batch = Batch(unit.index)
    items: list[dict[str, Any]] = []
    prepare = partial(_prepared, processor=processor, head=head, side=draft_side(decoding, processor, head))
    for place, row, prepared in prefetched(prepare, _entries(unit, places), threads, 2 * batch_size):
        batch.rows[place] = row
        if prepared is None:
            continue
        features, size = prepared
        items.append(features)
        batch.places.append(place)
        batch.sizes.append(size)
        if len(items) == batch_size:
            batch.features = join_prepared(processor, items)
            yield batch
            batch, items = Batch(unit.index), []
    if batch.rows:
        batch.features = join_prepared(processor, items) if items else {}
        yield batch


def _entries(unit: Unit, places: Sequence[int] | None) -> Iterator[tuple[int, dict[str, Any], Entry | None]]:
    """Yield place, row and entry of every image; no entry for one whose content came before."""
    seen: dict[str, int] = {}
    for place, entry in unit.stretch.read(places):
        row: dict[str, Any] = {"id": entry.id, "source": entry.source, "sha256": None}
        known = None
        if isinstance(entry.content, (bytes, bytearray)):
            row["sha256"] = sha256(entry.content).hexdigest()
            known = seen.setdefault(row["sha256"], place)
        if known is not None and known != place:
            yield place, {**row, "same_as": known}, None
        else:
            yield place, row, entry


def _prepared(
    item: tuple[int, dict[str, Any], Entry | None], processor: Any, head: str | None, side: int | None
) -> tuple[int, dict[str, Any], Prepared | None]:
    """Decode an image and make the processor's tensors of it, as the pipeline does; a fault goes into its row."""
    place, row, entry = item
    if entry is None:
        return place, row, None
    try:
        return place, row, _prepare(entry, processor, head, side)
    except InputImageError as error:
        return place, {**row, "error": str(error)}, None


def _prepare(entry: Entry, processor: Any, head: str | None, side: int | None) -> Prepared:
    """Decode an image and make the processor's tensors of it, as the pipeline does."""
    if isinstance(entry.content, InputImageError):
        raise entry.content
    named: Any = entry.content
    if isinstance(named, (bytes, bytearray)):
        named = {
            "bytes": named,
            "path": entry.source if entry.source.endswith(entry.id) else f"{entry.source}: {entry.id}",
        }
    if side is None:
        image = load_image(named)
        size = image.size
    else:
        image, size = load_draft(named, side)
    options = {} if head is None else {"head": head}
    try:
        found = processor(images=image, return_tensors="pt", **options)
    except ValueError as error:
        name = named["path"] if isinstance(named, dict) else named
        raise InputImageError(
            f"{name}: the processor cannot use this image of {image.width}x{image.height} pixels ({error}).", name
        ) from error
    return {name: value for name, value in found.items() if name != "head"}, size
