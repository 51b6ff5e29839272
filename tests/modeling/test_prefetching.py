"""Work done ahead: in order, never far ahead, faults in their places."""

import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest
import torch

from deepfake_detectors.modeling.prefetching import PreparedBatches, prefetched

WORKERS = [0, 1, 2, 5]


@pytest.mark.parametrize("num_workers", WORKERS)
def test_in_order(num_workers) -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number * number

    assert list(prefetched(slow_first, range(20), num_workers, 4)) == [number * number for number in range(20)]
    assert list(prefetched(slow_first, [], num_workers, 4)) == []


@pytest.mark.parametrize("num_workers", WORKERS)
def test_never_far_ahead(num_workers) -> None:
    taken = count()
    found = prefetched(lambda item: item, taken, num_workers, 6)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    read = next(taken)
    assert read == 3 if num_workers == 0 else read <= 3 + 6
    found.close()


def test_workers_work_at_once() -> None:
    both = threading.Barrier(2, timeout=10)
    names = set()

    def meet(item: int) -> int:
        names.add(threading.current_thread().name)
        both.wait()  # breaks unless a second thread comes
        return item

    assert list(prefetched(meet, (item for item in range(4)), 2)) == [0, 1, 2, 3]
    assert len(names) == 2


@pytest.mark.parametrize("num_workers", WORKERS)
def test_faults_come_in_their_places(num_workers) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the list ended")

    def work(item: int) -> int:
        if item == 7:
            raise ValueError("seven")
        return item

    for source, last, kind in ((items(), 2, OSError), (range(20), 6, ValueError)):
        found = prefetched(work, source, num_workers, 8)
        assert [next(found) for _ in range(last + 1)] == list(range(last + 1))
        with pytest.raises(kind):
            next(found)


def test_what_is_not_asked_for_is_not_done() -> None:
    done = []

    def work(item: int) -> int:
        time.sleep(0.02)
        done.append(item)
        return item

    found = prefetched(work, range(50), 1, 20)
    next(found)
    found.close()
    assert len(done) < 10


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches(num_workers) -> None:
    def prepare(item: int) -> dict:
        return {"pixel_values": torch.full((1, 2), item), "row": {"n": item}}

    batches = PreparedBatches(range(5), prepare, num_workers, 2)
    found = list(batches)
    assert len(batches) == len(found) == 3
    assert [batch["pixel_values"].tolist() for batch in found] == [[[0, 0], [1, 1]], [[2, 2], [3, 3]], [[4, 4]]]
    assert found[2]["row"] == [{"n": 4}]
    alone = list(PreparedBatches(iter(range(2)), prepare, num_workers, 1))
    assert [batch["row"] for batch in alone] == [{"n": 0}, {"n": 1}]
