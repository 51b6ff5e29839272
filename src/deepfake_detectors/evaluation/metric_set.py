"""Named numbers of one evaluation: a value, or the reason why there is none; never a 0 in its place."""

from __future__ import annotations

import math
from typing import Any

from deepfake_detectors.evaluation.bootstrap import Interval

__all__ = ["MetricSet"]


class MetricSet:
    """Collects metrics in the form of `results.json`.

    Attributes:
        metrics: name -> `{"value", "low", "high"}`; unrounded floats, or `None` where undefined or not asked for.
        undefined: name -> why its value is `None`.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, dict[str, float | None]] = {}
        self.undefined: dict[str, str] = {}

    def add(self, name: str, value: float | None, reason: str | None = None, interval: Interval | None = None) -> None:
        """Add one metric.

        Args:
            name: as in the report.
            value: a finite number, or `None`.
            reason: why there is none; needed exactly then.
            interval: its confidence interval.

        Raises:
            ValueError: for a name that is taken, a value that is not finite, or `None` without a reason.
        """
        if name in self.metrics:
            raise ValueError(f"The metric {name!r} is there already.")
        if value is None and reason is None:
            raise ValueError(f"The metric {name!r} has no value and no reason why.")
        if value is not None and not math.isfinite(value):
            raise ValueError(f"The metric {name!r} is {value}, expected a finite number, or None and a reason.")
        self.metrics[name] = {
            "value": None if value is None else float(value),
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
        }
        if value is None:
            self.undefined[name] = str(reason)

    def value(self, name: str) -> float | None:
        return self.metrics[name]["value"]

    def to_dict(self) -> dict[str, Any]:
        return {"metrics": self.metrics, "undefined": self.undefined}
