"""How many of what, where."""

from __future__ import annotations

from typing import Any

import pandas as pd

from deepfake_detectors.data.lint.findings import LintFinding

__all__ = ["count_rows", "find_imbalance", "find_repeats"]

# Share of the larger class: from here a constant answer looks like a result, from there it is worth a remark.
WARN_SHARE, NOTE_SHARE = 0.6, 0.55
SHIFT = 0.1  # difference of the share of fakes between two splits


def count_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Pictures per split, label and manipulation."""
    keys = ["split", "label", "manipulation"]
    counts = rows.fillna({"manipulation": ""}).groupby(keys, sort=True).size()
    return [dict(zip(keys, key, strict=True)) | {"pictures": int(count)} for key, count in counts.items()]


def find_imbalance(rows: pd.DataFrame) -> list[LintFinding]:
    """Unequal classes, shares that differ between splits, manipulations that are missing in a split."""
    findings, shares = [], {}
    for split, part in rows.groupby("split", sort=False):
        real, fake = (int((part["label"] == label).sum()) for label in ("real", "fake"))
        larger, share = ("fake", fake / len(part)) if fake >= real else ("real", real / len(part))
        shares[str(split)] = fake / len(part)
        details = {"real": real, "fake": fake, "fake_share": round(fake / len(part), 4)}
        counts = f"{split}: {real} real, {fake} fake"
        if not real or not fake:
            level, end = "warning", f"; without {'real' if not real else 'fake'} pictures no AUC is defined"
        elif share > NOTE_SHARE:
            level = "warning" if share > WARN_SHARE else "note"
            end = f"; always answering {larger} is right on {100 * share:.0f} %. Report AUC or balanced accuracy"
        else:
            level, end = "ok", ""
        findings.append(LintFinding(level, "class-balance", f"{counts}{end}.", str(split), details))
    if shares and max(shares.values()) - min(shares.values()) > SHIFT:
        listed = ", ".join(f"{split} {100 * share:.0f} %" for split, share in shares.items())
        message = f"The share of fakes differs between splits ({listed}): thresholds do not carry over."
        findings.append(LintFinding("note", "balance-shift", message, details={"fake_share": shares}))
    return findings + _absent_manipulations(rows)


def _absent_manipulations(rows: pd.DataFrame) -> list[LintFinding]:
    fakes = rows[(rows["label"] == "fake") & rows["manipulation"].notna()]
    everywhere = set(fakes["manipulation"])
    findings = []
    for split, part in fakes.groupby("split", sort=False):
        if absent := sorted(everywhere - set(part["manipulation"])):
            message = f"{split} has no {', '.join(absent)}, which another split has."
            findings.append(LintFinding("note", "manipulation-absent", message, str(split), {"absent": absent}))
    return findings


def find_repeats(rows: pd.DataFrame) -> list[LintFinding]:
    """Pictures that stand in several rows, as in sets of questions: they weigh more than others.

    Args:
        rows: all rows, with `picture`, the same value in all rows of a picture.
    """
    findings = []
    for split, part in rows.groupby("split", sort=False):
        times = part.groupby("picture", sort=False).size()
        if times.max() > 1:
            of_rows = float((part["label"] == "real").mean())
            of_pictures = float((part.drop_duplicates("picture")["label"] == "real").mean())
            message = (
                f"A picture of {split} stands in {times.min()} to {times.max()} rows ({len(part)} rows, {len(times)} "
                f"pictures): {100 * of_rows:.0f} % of rows but {100 * of_pictures:.0f} % of pictures are real."
            )
            details = {
                "rows": len(part),
                "pictures": len(times),
                "fewest": int(times.min()),
                "most": int(times.max()),
                "real_share_of_rows": round(of_rows, 4),
                "real_share_of_pictures": round(of_pictures, 4),
            }
            findings.append(LintFinding("note", "repeated-rows", message, str(split), details))
    return findings
