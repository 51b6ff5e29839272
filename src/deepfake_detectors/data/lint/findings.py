"""What a lint found, how serious each finding is, and the control scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from deepfake_detectors.dataset_scripts._builder import Finding

__all__ = ["LEVELS", "LintResult", "control_rows", "effect_level", "worst_first"]

LEVELS = ("error", "warning", "note", "ok")
CONTROLS = {"bytes-per-pixel": "bytes per pixel alone", "metadata-classifier": "metadata-only classifier"}
# How far apart two classes are by one attribute, as the difference of two shares or as 2 * |AUC - 0.5|: AUC 0.9, by
# which a detector could solve (that part of) the set, 0.65 and 0.55.
EFFECT_LEVELS = (("error", 0.8), ("warning", 0.3), ("note", 0.1))


@dataclass
class LintResult:
    """What `lint_dataset` found.

    Attributes:
        name: what was linted.
        findings: the worst first.
        counts: images per split, label and manipulation.
        rows: one row per image with everything measured (`SCHEMA` and what follows from it), without the images.
    """

    name: str
    findings: list[Finding]
    counts: list[dict[str, Any]] = field(default_factory=list)
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)

    def by_code(self, code: str) -> list[Finding]:
        """The findings of one check."""
        return [finding for finding in self.findings if finding.code == code]

    def to_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.name,
            "counts": self.counts,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def effect_level(effect: float) -> str:
    """The level of a difference in [0, 1] between the classes."""
    return next((level for level, limit in EFFECT_LEVELS if effect >= limit), "ok")


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Sorted by level; findings of one level stay in the order of the checks."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def control_rows(findings: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What a detector can reach without seeing an image, as table cells.

    Args:
        findings: as `Finding.to_dict` returns them, or as in a `lint.json`.
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
