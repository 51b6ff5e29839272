"""What two datasets share: images, near-duplicates, videos, persons. Training data must not be used for tests."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from deepfake_detectors.data.lint.duplicates import find_duplicates, find_near_duplicates, find_overlaps
from deepfake_detectors.dataset_scripts._builder import Finding

__all__ = ["find_leaks"]

CHECKS = {
    "duplicate-bytes": "the same bytes",
    "duplicate-pixels": "the same pixels in different files",
    "near-duplicate": "nearly the same pixels",
}
BETWEEN = "-splits"  # what the checks of splits call a finding across two of them


def find_leaks(train: pd.DataFrame, test: pd.DataFrame, names: tuple[str, str], near: int) -> list[Finding]:
    """Look for what two datasets have in common.

    Videos, persons and source material are compared by their ids. Two datasets that number their videos in the same
    way therefore also match; the reader has to decide whether it is the same material.

    Args:
        train, test: measurements of each, one row per image, as `run.measure_source` gives them; their own splits
            do not matter here.
        names: of the two sets, for the findings.
        near: bits of 64 in which perceptual hashes of near-duplicates may differ.
    """
    names = names if names[0] != names[1] else (f"{names[0]} (first)", f"{names[1]} (second)")
    rows = pd.concat([_sided(part, name) for part, name in zip((train, test), names, strict=True)], ignore_index=True)
    readable = rows[rows["error"].isna()].reset_index(drop=True)
    found = [
        replace(finding, message=finding.message.replace("in more than one split", "in both sets"))
        for finding in find_duplicates(readable) + find_near_duplicates(readable, near)
        if finding.code.endswith(BETWEEN) and finding.level != "ok"
    ]
    found = [
        replace(finding, message=finding.message.replace("in different splits", "in different sets"))
        for finding in found
    ]
    seen = {finding.code.removesuffix(BETWEEN) for finding in found}
    for code, what in CHECKS.items():
        if code not in seen:
            text = f"No image in {names[1]} has {what} as an image in {names[0]}."
            found.append(Finding("ok", text, f"{code}{BETWEEN}", details={"pictures": len(readable)}))
    return found + [
        replace(finding, message=finding.message.replace("overlap of splits", "overlap of the sets"))
        for finding in find_overlaps(rows)
    ]


def _sided(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows as one split of that name, with ids that cannot be mistaken for the other set's."""
    alone = rows["group_id"] == rows["id"]  # such a group says that nothing is known
    return rows.assign(split=name, id=[f"{name}: {id}" for id in rows["id"]], group_id=rows["group_id"].mask(alone))
