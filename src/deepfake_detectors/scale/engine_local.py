"""Units on this machine: in this process, in threads next to an accelerator, or in several CPU processes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

import torch

from deepfake_detectors.scale.contents import read_contents
from deepfake_detectors.scale.judging import DetectorFailed, Judgement, Question, assembled
from deepfake_detectors.scale.preparing import prepared_batches
from deepfake_detectors.scale.units import Unit

__all__ = ["judge_local", "read_local"]

MAX_DEATHS = 3  # of processes at work on one unit, before the run gives up
PR_SET_PDEATHSIG = 1

Finished = tuple[Unit, list[dict[str, Any]]]

# Set before the workers are forked, so that they share the weights; or by `_begin` where they are spawned.
_judgement: Judgement | None = None


def judge_local(
    units: Sequence[Unit],
    judgement: Judgement,
    batch_size: int,
    num_workers: int,
    places: Mapping[int, Sequence[int]] | None = None,
) -> Iterator[Finished]:
    """Judge units, and yield each with its rows as soon as it is done.

    Args:
        units: to be judged.
        judgement: the loaded detector.
        batch_size: images per forward pass.
        num_workers: on the CPU, processes that decode and judge with one thread each; with an accelerator, threads
            that decode. 0 does everything in this thread.
        places: index of a unit -> only these of its images.

    Raises:
        DetectorFailed: if the detector fails, or if one unit crashes its process several times.
    """
    if num_workers and judgement.pipeline.device.type == "cpu":
        yield from _in_processes(units, judgement, batch_size, num_workers, places)
        return
    for unit in units:
        yield unit, _rows(unit, judgement, batch_size, num_workers, _chosen(unit, places))


def read_local(units: Sequence[Unit], num_workers: int) -> Iterator[tuple[Unit, Any]]:
    """Read units, and yield each with its contents; see `read_contents`.

    Args:
        units: to be read.
        num_workers: threads that read and hash; 0 does it in this thread.
    """
    if not num_workers:
        yield from ((unit, read_contents(unit)) for unit in units)
        return
    with ThreadPoolExecutor(num_workers, thread_name_prefix="hash") as pool:
        left, running = iter(units), deque[tuple[Unit, Future[Any]]]()
        while True:
            for unit in islice(left, 2 * num_workers - len(running)):
                running.append((unit, pool.submit(read_contents, unit)))
            if not running:
                return
            unit, future = running.popleft()
            yield unit, future.result()


def _chosen(unit: Unit, places: Mapping[int, Sequence[int]] | None) -> Sequence[int] | None:
    return None if places is None else places[unit.index]


def _rows(
    unit: Unit, judgement: Judgement, batch_size: int, threads: int, places: Sequence[int] | None
) -> list[dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    head, decoding = judgement.question.head, judgement.question.decoding
    for batch in prepared_batches(unit, judgement.processor, batch_size, head, threads, places, decoding):
        rows |= judgement.rows(batch)
    return assembled(rows, range(unit.stretch.size) if places is None else places)


# ---- processes ------------------------------------------------------------------------------------------------------


def _in_processes(
    units: Sequence[Unit],
    judgement: Judgement,
    batch_size: int,
    num_workers: int,
    places: Mapping[int, Sequence[int]] | None,
) -> Iterator[Finished]:
    global _judgement
    _judgement = judgement
    left = list(reversed(units))
    deaths: Counter[int] = Counter()
    try:
        while left:
            pool = _pool(num_workers, judgement.question)
            running: dict[Future[list[dict[str, Any]]], Unit] = {}
            try:
                while left or running:
                    while left and len(running) < 2 * num_workers:
                        unit = left.pop()
                        running[pool.submit(_work, unit, batch_size, _chosen(unit, places))] = unit
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in sorted(done, key=lambda future: running[future].index):
                        rows = future.result()
                        yield running.pop(future), rows
            except BrokenProcessPool as error:
                # A process was killed, and all running units are lost; the one that caused it is among the first
                # `num_workers`.
                lost = sorted(running.values(), key=lambda unit: -unit.index)
                for unit in lost[-num_workers:]:
                    deaths[unit.index] += 1
                left += lost
                worst, count = deaths.most_common(1)[0]
                if count >= MAX_DEATHS:
                    raise DetectorFailed(
                        f"Unit {worst} crashed its process {count} times (killed, or out of memory). Use smaller "
                        "batches or fewer workers."
                    ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        _judgement = None


def _pool(num_workers: int, question: Question) -> ProcessPoolExecutor:
    # Forked, the workers share the weights and start at once; elsewhere than on Linux, forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    return ProcessPoolExecutor(num_workers, context, initializer=_begin, initargs=(os.getpid(), question))


def _begin(parent: int, question: Question) -> None:
    global _judgement
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    torch.set_num_threads(1)
    if _judgement is None:
        _judgement = Judgement(question)


def _end_with(parent: int) -> None:
    """End this process together with its parent, even if the parent is killed: nobody would read the answer, and the
    lock of the output, which a fork inherits, would not be released."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        return
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _work(unit: Unit, batch_size: int, places: Sequence[int] | None) -> list[dict[str, Any]]:
    if _judgement is None:
        raise RuntimeError("The process was not started.")
    return _rows(unit, _judgement, batch_size, 0, places)
