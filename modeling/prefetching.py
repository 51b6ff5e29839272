"""Prepare batches for a model in threads: ahead of it, in order, within a bound."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch

__all__ = ["PreparedBatches", "prefetched", "stacked"]

TABLES = ("datasets", "numpy", "pyarrow")  # libraries whose rows can be read from several threads

Item = TypeVar("Item")
Found = TypeVar("Found")


def prefetched(
    work: Callable[[Item], Found], items: Iterable[Item], num_workers: int = 0, ahead: int = 0
) -> Iterator[Found]:
    """Yield `work(item)` for every item, in the order of the items.

    This uses threads because decoding and resizing release Python's lock, so two threads use two cores. Nothing is
    copied between processes, and inputs that cannot be sent to one, such as generators, work too.

    Args:
        work: may be called from several threads at once.
        items: read one by one in the calling thread; may be endless.
        num_workers: number of threads; 0 works in the calling thread, one item at a time.
        ahead: number of results that may wait or be in progress; at least `num_workers`.

    Raises:
        Exception: what `work` or `items` raise, in the place of that item: all results before it come first.
    """
    if num_workers == 0:
        yield from map(work, items)
        return
    ahead = max(ahead, num_workers)
    waiting: deque[Future[Found]] = deque()
    failure: Exception | None = None
    with ThreadPoolExecutor(num_workers, thread_name_prefix="prefetch") as pool:
        try:
            source = iter(items)
            while True:
                try:
                    item = next(source)
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001 - raised below, in its place
                    failure = error
                    break
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
            if failure is not None:
                raise failure
        finally:  # also where the caller asks for no more
            for future in waiting:
                future.cancel()


def _shared(inputs: Any) -> bool:
    """Return whether several threads may read these rows at once, because they belong to a table."""
    while (inside := getattr(inputs, "rows", getattr(inputs, "dataset", None))) is not None:
        inputs = inside
    return type(inputs).__module__.partition(".")[0] in TABLES


class PreparedBatches:
    """Batches of prepared images, as the model takes them.

    Args:
        inputs: with a length, or to be iterated.
        prepare: makes the features of one input.
        num_workers: number of threads that prepare.
        batch_size: images per batch; with 1, features are returned as they are.
    """

    def __init__(self, inputs: Any, prepare: Any, num_workers: int, batch_size: int) -> None:
        self.inputs, self.prepare = inputs, prepare
        self.num_workers, self.batch_size = num_workers, batch_size

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # The next batch is made while this one is judged.
        work, items = self._work()
        prepared = prefetched(work, items, self.num_workers, 2 * self.batch_size)
        while batch := list(islice(prepared, self.batch_size)):
            yield batch[0] if self.batch_size == 1 else stacked(batch)

    def _work(self) -> tuple[Callable[[Any], dict[str, Any]], Iterable[Any]]:
        if not hasattr(self.inputs, "__len__"):
            return self.prepare, self.inputs
        places = range(len(self.inputs))
        if _shared(self.inputs):  # `datasets` decodes pictures when a row is read
            return lambda place: self.prepare(self.inputs[place]), places
        return self.prepare, (self.inputs[place] for place in places)


def stacked(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join features of single images: tensors have a batch axis of 1 each, anything else becomes a list.

    Args:
        items: at least one, all with the same names.
    """
    joined: dict[str, Any] = {}
    for name, first in items[0].items():
        values = [item[name] for item in items]
        joined[name] = torch.cat(values) if isinstance(first, torch.Tensor) else values
    return joined
