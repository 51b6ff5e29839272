"""What lint has to say: one sentence each, with its weight and the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["LEVELS", "LintFinding", "control_rows", "effect_level", "worst_first"]

LEVELS = ("error", "warning", "note", "ok")
CONTROLS = {"bytes-per-pixel": "bytes per pixel alone", "metadata-classifier": "metadata-only classifier"}
# How far apart two classes are by one attribute, as the difference of two shares or as 2 * |AUC - 0.5|: AUC 0.9, by
# which a detector could solve (that part of) the set, 0.65 and 0.55.
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


def control_rows(findings: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What a detector reaches without seeing a picture, as cells of a table.

    Args:
        findings: as `LintFinding.to_dict` gives them, or as they stand in a `lint.json`.
    """
    return [
        {
            "split": str(item["split"]),
            "control": CONTROLS[item["code"]],
            "AUC": f"{item['details']['auc']:.3f}",
            "95 % interval": f"{item['details']['low']:.3f} to {item['details']['high']:.3f}",
            "real": str(item["details"]["real"]),
            "fake": str(item["details"]["fake"]),
        }
        for item in findings
        if item["code"] in CONTROLS and "auc" in item["details"]
    ]
