"""What lint has to say: one sentence each, with its weight and the numbers behind it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["LEVELS", "LintFinding", "effect_level", "worst_first"]

LEVELS = ("error", "warning", "note", "ok")
# How far apart two classes are by one attribute, as the difference of two shares or as 2 * |AUC - 0.5|. From the first
# on it alone solves (that part of) the set; the second is AUC 0.65, more than many detectors gain over chance across
# data sets; the third is AUC 0.55.
EFFECT_LEVELS = (("error", 0.8), ("warning", 0.3), ("note", 0.1))


@dataclass(frozen=True)
class LintFinding:
    """One observation.

    Attributes:
        level: `error` where a detector can solve the set, or a part of it, without looking at the forgery, or where
            its score would be wrong; `warning` and `note` for less; `ok` for a check that passed.
        code: stable name of the check.
        message: a sentence for a reader.
        split: the split it is about, or `None`.
        details: the numbers, and examples by id; JSON-serialisable.
    """

    level: str
    code: str
    message: str
    split: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def effect_level(effect: float) -> str:
    """The level of a difference in [0, 1] between the classes."""
    return next((level for level, limit in EFFECT_LEVELS if effect >= limit), "ok")


def worst_first(findings: list[LintFinding]) -> list[LintFinding]:
    """Sorted by level; findings of one level stay in the order of the checks."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
