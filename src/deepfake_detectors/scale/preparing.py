"""From a unit to batches of tensors: the part of the work without the model, the same in every engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import torch

from deepfake_detectors.modeling.image_loading import InputImageError, load_image
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
        features: what the processor makes of them, stacked.
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
    """
    if threads:
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            yield from _batches(unit, processor, batch_size, head, places, pool)
    else:
        yield from _batches(unit, processor, batch_size, head, places, None)


def _batches(
    unit: Unit,
    processor: Any,
    batch_size: int,
    head: str | None,
    places: Sequence[int] | None,
    pool: ThreadPoolExecutor | None,
) -> Iterator[Batch]:
    batch = Batch(unit.index)
    items: list[dict[str, Any]] = []
    for place, row, prepared in _prepared(unit, processor, head, places, pool, 2 * batch_size):
        batch.rows[place] = row
        if prepared is None:
            continue
        features, size = prepared
        items.append(features)
        batch.places.append(place)
        batch.sizes.append(size)
        if len(items) == batch_size:
            batch.features = _stacked(items)
            yield batch
            batch, items = Batch(unit.index), []
    if batch.rows:
        batch.features = _stacked(items)
        yield batch


def _prepared(
    unit: Unit,
    processor: Any,
    head: str | None,
    places: Sequence[int] | None,
    pool: ThreadPoolExecutor | None,
    ahead: int,
) -> Iterator[tuple[int, dict[str, Any], Prepared | None]]:
    """Yield place, row and tensors, in order; the pool works at most `ahead` images in advance."""
    seen: dict[str, int] = {}
    waiting: deque[tuple[int, dict[str, Any], Future[Prepared] | Entry | None]] = deque()

    def settled() -> tuple[int, dict[str, Any], Prepared | None]:
        place, row, work = waiting.popleft()
        if work is None:
            return place, row, None
        try:
            return place, row, work.result() if isinstance(work, Future) else _prepare(work, processor, head)
        except InputImageError as error:
            row["error"] = str(error)
            return place, row, None

    for place, entry in unit.stretch.read(places):
        row: dict[str, Any] = {"id": entry.id, "source": entry.source, "sha256": None}
        known = None
        if isinstance(entry.content, (bytes, bytearray)):
            row["sha256"] = sha256(entry.content).hexdigest()
            known = seen.setdefault(row["sha256"], place)
        if known is not None and known != place:
            row["same_as"] = known
            waiting.append((place, row, None))
        else:
            waiting.append((place, row, entry if pool is None else pool.submit(_prepare, entry, processor, head)))
        while len(waiting) > (0 if pool is None else ahead):
            yield settled()
    while waiting:
        yield settled()


def _prepare(entry: Entry, processor: Any, head: str | None) -> Prepared:
    """Decode an image and make the processor's tensors of it, as the pipeline does."""
    if isinstance(entry.content, InputImageError):
        raise entry.content
    named: Any = entry.content
    if isinstance(named, (bytes, bytearray)):
        named = {
            "bytes": named,
            "path": entry.source if entry.source.endswith(entry.id) else f"{entry.source}: {entry.id}",
        }
    image = load_image(named)
    options = {} if head is None else {"head": head}
    try:
        found = processor(images=image, return_tensors="pt", **options)
    except ValueError as error:
        name = named["path"] if isinstance(named, dict) else named
        raise InputImageError(
            f"{name}: the processor cannot use this image of {image.width}x{image.height} pixels ({error}).", name
        ) from error
    return {name: value for name, value in found.items() if name != "head"}, image.size


def _stacked(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join features of single images, each with a batch axis of 1."""
    if not items:
        return {}
    stacked: dict[str, Any] = {}
    for name, first in items[0].items():
        values = [item[name] for item in items]
        stacked[name] = (
            torch.cat(values) if isinstance(first, torch.Tensor) else [each for value in values for each in value]
        )
    return stacked
