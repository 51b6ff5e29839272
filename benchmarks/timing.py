"""Two ways to do the same work, timed in turn in one process."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Comparison:
    """Seconds of both sides, run by run, and slow/fast pair by pair."""

    name: str
    slow: list[float]
    fast: list[float]

    @property
    def ratios(self) -> list[float]:
        return [slow / fast for slow, fast in zip(self.slow, self.fast, strict=True)]

    def row(self) -> str:
        ratios = self.ratios
        return (
            f"| {self.name} | {statistics.median(self.slow):.3f} s | {statistics.median(self.fast):.3f} s | "
            f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


def seconds() -> float:
    """CPU seconds of this process, which other work on the machine hardly changes; beside a GPU, the clock."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def compare(name: str, slow: Callable[[], object], fast: Callable[[], object], repeats: int) -> Comparison:
    """Run both sides once to warm up, then `repeats` times in turn, so that a drifting machine hits both."""
    slow(), fast()
    result = Comparison(name, [], [])
    for _ in range(repeats):
        for times, run in ((result.slow, slow), (result.fast, fast)):
            start = seconds()
            run()
            times.append(seconds() - start)
    return result


def hardware() -> str:
    """What the figures were measured on, in which unit, and what else ran."""
    threads, cores = torch.get_num_threads(), os.cpu_count()
    if torch.cuda.is_available():
        device = f"{torch.cuda.get_device_name()}, seconds"
    else:
        device = f"CPU seconds of {threads} thread{'s' * (threads > 1)}, {cores} cores, no GPU"
    load = os.getloadavg()[0]
    return f"{device}, {platform.machine()}, torch {torch.__version__}; load average {load:.1f} when this began"


def table(rows: list[Comparison], slow: str, fast: str) -> str:
    head = f"| work | {slow} | {fast} | ratio (range of pairs) |\n| --- | --- | --- | --- |"
    return "\n".join([head, *(row.row() for row in rows)])
