"""Shared source material: between splits, and between the classes of one split."""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from deepfake_detectors.data.lint.findings import LintFinding

__all__ = ["find_overlaps", "find_pairs"]

EXAMPLES = 10
KINDS = {  # name -> level if shared, columns whose values name the same things
    "videos": ("error", ("video_id",)),
    "groups of shared source material": ("error", ("group_id",)),
    "sources (target and source videos or persons)": ("error", ("target_id", "source_id")),
}


def find_overlaps(rows: pd.DataFrame) -> list[LintFinding]:
    """Videos, groups and sources that occur in more than one split.

    Args:
        rows: pictures with `split`, `video_id`, `group_id`, `target_id`, `source_id`, null where unknown.
    """
    splits = rows["split"].drop_duplicates().tolist()
    if len(splits) < 2:
        return []
    findings = []
    for name, (level, columns) in KINDS.items():
        code = f"overlap-{name.split()[0]}"
        members = {
            split: set().union(*(part[column].dropna() for column in columns)) - _unshared(part)
            for split, part in rows.groupby("split", sort=False)
        }
        if not all(members.values()):
            continue
        sizes = {split: len(members[split]) for split in splits}
        counted = ", ".join(f"{split} {size}" for split, size in sizes.items())
        shared = {(one, two): members[one] & members[two] for one, two in combinations(splits, 2)}
        for (one, two), common in shared.items():
            if common:
                text = f"{len(common)} {name} occur in both {one} and {two} ({counted}): {_first(common)}."
                details = {"shared": len(common), "sizes": sizes, "examples": sorted(common)[:EXAMPLES]}
                findings.append(LintFinding(level, code, text, details=details))
        if not any(shared.values()):
            text = f"No overlap of {name} between splits ({counted})."
            findings.append(LintFinding("ok", code, text, details={"shared": 0, "sizes": sizes}))
    if not findings:
        text = "Nothing is stated about shared videos, persons or groups, so an overlap of splits cannot be ruled out."
        findings.append(LintFinding("note", "overlap-unknown", text))
    return findings


def _unshared(part: pd.DataFrame) -> set[str]:
    """Groups that only repeat the id of their one picture: they say that nothing is known."""
    return set(part.loc[part["group_id"] == part["id"], "group_id"])


def find_pairs(rows: pd.DataFrame) -> list[LintFinding]:
    """Fakes whose real original is in the same split: fine in an official split, a leak once it is cut again."""
    findings = []
    for split, part in rows.groupby("split", sort=False):
        known = part[part["target_id"].notna()]
        by = "target_id"
        if known.empty:
            known, by = part[part["group_id"].notna() & (part["group_id"] != part["id"])], "group_id"
        originals = set(known.loc[known["label"] == "real", by])
        fakes = part[part["label"] == "fake"]
        paired = int(fakes[by].isin(originals).sum())
        if paired:
            message = (
                f"{paired} of {len(fakes)} fake pictures of {split} have a real picture of their own "
                f"{'target' if by == 'target_id' else 'group'} in the same split. Never cut it further by picture, "
                "but by group_id."
            )
            details = {"paired": paired, "fakes": len(fakes), "by": by}
            findings.append(LintFinding("note", "paired", message, str(split), details))
    return findings


def _first(values: set[str]) -> str:
    shown = ", ".join(sorted(values)[:3])
    return f"{shown} and {len(values) - 3} more" if len(values) > 3 else shown
