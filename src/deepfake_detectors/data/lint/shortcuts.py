"""What separates the classes without the forgery: attributes of their files, and how many images each class has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from deepfake_detectors.data.lint.findings import LEVELS, effect_level
from deepfake_detectors.dataset_scripts._builder import Finding

__all__ = [
    "CATEGORIES",
    "NUMBERS",
    "add_attributes",
    "count_rows",
    "find_imbalance",
    "find_misnamed",
    "find_repeats",
    "find_shortcuts",
]

CATEGORIES = {  # column -> what a reader calls it
    "format": "file format",
    "extension": "extension",
    "misnamed": "wrong file extension",
    "size": "size",
    "mode": "colour mode",
    "jpeg_quality": "JPEG quality",
    "jpeg_tables": "JPEG quantisation tables",
    "subsampling": "JPEG chroma subsampling",
    "progressive": "progressive JPEG",
    "has_exif": "EXIF",
    "metadata": "metadata",
    "frame_rate": "frames per second",
}
NUMBERS = {"bytes_per_pixel": "bytes per pixel", "pixels": "number of pixels", "aspect": "aspect ratio"}
FEW_VALUES = 5  # a number with fewer values is judged as a category
CHANCE = 0.001  # smaller differences than a complete one must be this unlikely by chance
TOTAL = 0.999
FEWEST = 3  # images on each side; two that differ in size say nothing
# Share of the larger class: from here a constant answer looks like a result, from there it is worth a remark.
WARN_SHARE, NOTE_SHARE = 0.6, 0.55
SHIFT = 0.1  # difference of the share of fakes between two splits


def add_attributes(rows: pd.DataFrame) -> pd.DataFrame:
    """The measured rows with what follows from their columns: `CATEGORIES` and `NUMBERS`."""
    rows = rows.copy()
    by_extension = Image.registered_extensions()
    expected = rows["extension"].map(lambda value: by_extension.get(value) if isinstance(value, str) else None)
    known = expected.notna() & rows["format"].notna()
    rows["misnamed"] = (known & (expected != rows["format"])).map({True: "yes", False: "no"})
    rows["size"] = rows["width"].astype("Int64").astype(str) + "x" + rows["height"].astype("Int64").astype(str)
    rows["jpeg_quality"] = rows["jpeg_quality"].astype("Int64")
    rows["has_exif"] = rows["exif_tags"].fillna(0).gt(0).map({True: "yes", False: "no"})
    rows["pixels"] = rows["width"] * rows["height"]
    rows["aspect"] = rows["width"] / rows["height"]
    rows["bytes_per_pixel"] = rows["bytes"] / rows["pixels"]
    return rows


def find_misnamed(rows: pd.DataFrame) -> list[Finding]:
    """Files whose extension does not match the format of their content."""
    findings = []
    for (split, method), part in rows[rows["misnamed"] == "yes"].groupby(["split", "manipulation"], dropna=False):
        kinds = ", ".join(
            sorted(f"{form} as {name}" for form, name in set(zip(part["format"], part["extension"], strict=True)))
        )
        message = (
            f"{len(part)} file(s) of {method if isinstance(method, str) else part['label'].iloc[0]} in {split} are "
            f"named with the extension of another format ({kinds}); a reader must look at the content."
        )
        details = {"files": len(part), "examples": part["id"].head(10).tolist()}
        findings.append(Finding("warning", message, "misnamed", str(split), details))
    return findings


def find_shortcuts(rows: pd.DataFrame) -> list[Finding]:
    """What separates the fakes, or those of one manipulation, from the real images of the same split.

    A category counts with the value whose share differs most, a number with the AUC of its order. A complete
    separation is always reported, anything less only if it is unlikely by chance, where the images of one video or
    group count once.

    Args:
        rows: from `add_attributes`, one row per image.
    """
    findings = []
    for split, reals, fakes in _contrasts(rows):
        for attribute in (*CATEGORIES, *NUMBERS):
            overall = _compare(attribute, reals, fakes)
            found: list[tuple[str | None, dict[str, Any]]] = [(None, overall)] if overall else []
            worst = LEVELS.index(overall["level"]) if overall else len(LEVELS)
            for method, part in fakes.groupby("manipulation", sort=True):
                if len(part) < len(fakes):
                    result = _compare(attribute, reals, part)
                    if result and LEVELS.index(result["level"]) < worst:  # else it says nothing new
                        found.append((str(method), result))
            for name, result in found:
                level, text = result.pop("level"), result.pop("text")
                whose = f"{split}, {name} versus real" if name else f"{split}, fake versus real"
                details = {"attribute": attribute, "manipulation": name} | result
                findings.append(Finding(level, f"{whose}: {text}.", f"shortcut-{attribute}", split, details))
    return findings


def _contrasts(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Split, its real and its fake images; all splits together where none has both classes."""
    parts = {str(split): part for split, part in rows.groupby("split", sort=False)}
    whole = {split: part for split, part in parts.items() if part["label"].nunique() == 2}
    for split, part in (whole or {"all splits": rows}).items():
        reals, fakes = part[part["label"] == "real"], part[part["label"] == "fake"]
        if len(reals) and len(fakes):
            yield split, reals, fakes


def _compare(attribute: str, reals: pd.DataFrame, fakes: pd.DataFrame) -> dict[str, Any] | None:
    reals, fakes = (part[part[attribute].notna()] for part in (reals, fakes))
    if min(len(reals), len(fakes)) < FEWEST:
        return None
    if attribute in CATEGORIES:
        return _compare_shares(attribute, reals, fakes)
    both = pd.concat([reals[attribute], fakes[attribute]])
    if both.nunique() < FEW_VALUES and attribute != "bytes_per_pixel":
        return None
    return _compare_order(attribute, reals, fakes)


def _compare_shares(attribute: str, reals: pd.DataFrame, fakes: pd.DataFrame) -> dict[str, Any] | None:
    from scipy.stats import fisher_exact

    of_real, of_fake = (part[attribute].astype(str).value_counts(normalize=True) for part in (reals, fakes))
    difference = of_fake.sub(of_real, fill_value=0.0)
    if set(difference.index) <= {"yes", "no"}:
        value = "yes"
    else:  # of two shares that differ alike, the one that fakes have more of
        value = max(sorted(difference.index), key=lambda name: (abs(difference[name]).round(9), difference[name]))
    effect = abs(float(difference.get(value, 0.0)))
    level = effect_level(effect)
    if level == "ok":
        return None
    if effect < TOTAL:
        table = [_hits(part, attribute, value) for part in (reals, fakes)]
        if fisher_exact(table).pvalue >= CHANCE:
            return None
    shares = {"real": float(of_real.get(value, 0.0)), "fake": float(of_fake.get(value, 0.0))}
    named = CATEGORIES[attribute] + ("" if value == "yes" else f" {value or 'none'}")
    text = (
        f"{named} in {100 * shares['fake']:.0f} % of {len(fakes)} fake and {100 * shares['real']:.0f} % of "
        f"{len(reals)} real images"
    )
    return {"level": level, "text": text, "value": value, "share": shares, "effect": round(effect, 4)}


def _hits(part: pd.DataFrame, attribute: str, value: str) -> tuple[int, int]:
    """How many videos have the value and how many have not."""
    independent = _one_per_video(part)
    hits = int((independent[attribute].astype(str) == value).sum())
    return hits, len(independent) - hits


def _one_per_video(part: pd.DataFrame) -> pd.DataFrame:
    return part.loc[~part["video_id"].fillna(part["id"]).duplicated()]


def _compare_order(attribute: str, reals: pd.DataFrame, fakes: pd.DataFrame) -> dict[str, Any] | None:
    from scipy.stats import mannwhitneyu

    order = mannwhitneyu(fakes[attribute], reals[attribute])
    area = float(order.statistic) / (len(fakes) * len(reals))
    level = effect_level(2 * abs(area - 0.5))
    if level == "ok":
        return None
    means = (part.groupby(part["video_id"].fillna(part["id"]))[attribute].mean() for part in (fakes, reals))
    if mannwhitneyu(*means).pvalue >= CHANCE:
        return None
    medians = {"real": float(np.median(reals[attribute])), "fake": float(np.median(fakes[attribute]))}
    text = (
        f"{NUMBERS[attribute]} alone has AUC {max(area, 1 - area):.3f}, fakes being "
        f"{'larger' if area > 0.5 else 'smaller'} (median {medians['fake']:.4g} versus {medians['real']:.4g}; "
        f"{len(fakes)} fake, {len(reals)} real)"
    )
    return {"level": level, "text": text, "auc": round(area, 4), "median": medians}


def count_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Images per split, label and manipulation."""
    keys = ["split", "label", "manipulation"]
    counts = rows.fillna({"manipulation": ""}).groupby(keys, sort=True).size()
    return [dict(zip(keys, key, strict=True)) | {"pictures": int(count)} for key, count in counts.items()]


def find_imbalance(rows: pd.DataFrame) -> list[Finding]:
    """Unequal classes, shares that differ between splits, manipulations that are missing in a split."""
    findings, shares = [], {}
    for split, part in rows.groupby("split", sort=False):
        real, fake = (int((part["label"] == label).sum()) for label in ("real", "fake"))
        larger, share = ("fake", fake / len(part)) if fake >= real else ("real", real / len(part))
        shares[str(split)] = fake / len(part)
        details = {"real": real, "fake": fake, "fake_share": round(fake / len(part), 4)}
        counts = f"{split}: {real} real, {fake} fake"
        if not real or not fake:
            level, end = "warning", f"; without {'real' if not real else 'fake'} images the AUC is undefined"
        elif share > NOTE_SHARE:
            level = "warning" if share > WARN_SHARE else "note"
            end = f"; always answering {larger} is correct for {100 * share:.0f} %. Report AUC or balanced accuracy"
        else:
            level, end = "ok", ""
        findings.append(Finding(level, f"{counts}{end}.", "class-balance", str(split), details))
    if shares and max(shares.values()) - min(shares.values()) > SHIFT:
        listed = ", ".join(f"{split} {100 * share:.0f} %" for split, share in shares.items())
        message = f"The share of fakes differs between splits ({listed}): thresholds cannot be transferred."
        findings.append(Finding("note", message, "balance-shift", details={"fake_share": shares}))
    return findings + _absent_manipulations(rows)


def _absent_manipulations(rows: pd.DataFrame) -> list[Finding]:
    fakes = rows[(rows["label"] == "fake") & rows["manipulation"].notna()]
    everywhere = set(fakes["manipulation"])
    findings = []
    for split, part in fakes.groupby("split", sort=False):
        if absent := sorted(everywhere - set(part["manipulation"])):
            message = f"{split} has no {', '.join(absent)}, which another split has."
            findings.append(Finding("note", message, "manipulation-absent", str(split), {"absent": absent}))
    return findings


def find_repeats(rows: pd.DataFrame) -> list[Finding]:
    """Images that occur in several rows, as in datasets of questions: they count more than others.

    Args:
        rows: all rows, with `picture`, the same value in all rows of an image.
    """
    findings = []
    for split, part in rows.groupby("split", sort=False):
        times = part.groupby("picture", sort=False).size()
        if times.max() > 1:
            of_rows = float((part["label"] == "real").mean())
            of_pictures = float((part.drop_duplicates("picture")["label"] == "real").mean())
            message = (
                f"An image of {split} occurs in {times.min()} to {times.max()} rows ({len(part)} rows, {len(times)} "
                f"images): {100 * of_rows:.0f} % of rows but {100 * of_pictures:.0f} % of images are real."
            )
            details = {
                "rows": len(part),
                "pictures": len(times),
                "fewest": int(times.min()),
                "most": int(times.max()),
                "real_share_of_rows": round(of_rows, 4),
                "real_share_of_pictures": round(of_pictures, 4),
            }
            findings.append(Finding("note", message, "repeated-rows", str(split), details))
    return findings
