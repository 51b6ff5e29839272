"""One comparison of `verdict.py`."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Row(NamedTuple):
    """Two ways to the same verdicts.

    Attributes:
        name: what is compared.
        official: the long way.
        ours: the short way.
        ceiling: multiply-adds of the long way over those of the short one.
        batch: pictures per call of either.
    """

    name: str
    official: Callable[[], Any]
    ours: Callable[[], Any]
    ceiling: float
    batch: int = 1
