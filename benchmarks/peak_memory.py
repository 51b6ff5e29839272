"""Highest memory that a piece of work needs on top of what is there already."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["peak_megabytes"]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _resident(field: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def peak_megabytes(work: Callable[[], object]) -> float:
    """MiB that `work` adds to what is resident (Linux) or allocated (CUDA); NaN where neither can be read."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier work freed must not serve this one unseen
        CLEAR.write_text("5")  # resets VmHWM
        before = _resident("VmRSS")
    except OSError:
        return float("nan")
    work()
    return _resident("VmHWM") - before
