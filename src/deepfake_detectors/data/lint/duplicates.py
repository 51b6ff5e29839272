"""Duplicates: identical or similar images, and source material in several splits or in both classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd

from deepfake_detectors.dataset_scripts._builder import Finding

__all__ = ["MAX_RADIUS", "find_duplicates", "find_near_duplicates", "find_overlaps", "find_pairs", "near_pairs"]

EXAMPLES = 10  # ids named in a finding; the counts are of all
MAX_RADIUS = 15  # of 64 bits; beyond that hashes say little
CELLS = 2**20  # pairs of hashes compared at a time, so that memory stays bounded where all images are alike
WHERE = {
    "classes": ("error", "with both labels, real and fake"),
    "splits": ("error", "in more than one split"),
    "inside": ("warning", "more than once in one class of a split"),
}
NEAR = {
    "splits": ("warning", "nearly the same in different splits"),
    "classes": ("warning", "nearly the same, one real and one fake, although no shared source is stated"),
    "made-from": ("note", "nearly the same, one real and one fake from the same source; they must stay in one split"),
    "inside": ("note", "nearly the same within a class of a split, and not from the same video"),
}
WAYS = {"file_digest": "the same bytes", "pixel_digest": "the same pixels in different files"}
KINDS = {  # name -> level if shared, columns whose values name the same things
    "videos": ("error", ("video_id",)),
    "groups of shared source material": ("error", ("group_id",)),
    "sources (target and source videos or persons)": ("error", ("target_id", "source_id")),
}


def find_duplicates(rows: pd.DataFrame) -> list[Finding]:
    """Exact copies under different ids.

    Args:
        rows: images with `id`, `split`, `label`, `file_digest`, `pixel_digest`; one row per image.
    """
    findings = []
    for column, way in WAYS.items():
        known = rows[rows[column].notna()]
        if column == "pixel_digest":  # copies of the bytes were found before
            first = ~known.duplicated("file_digest") | known["file_digest"].isna()
            known = known[first]
        repeated = known[known.duplicated(column, keep=False)]
        groups: dict[str, list[list[str]]] = {name: [] for name in WHERE}
        for _, group in repeated.groupby(column, sort=False):
            ids = group["id"].tolist()
            if group["label"].nunique() > 1:
                groups["classes"].append(ids)
            if group["split"].nunique() > 1:
                groups["splits"].append(ids)
            if group.duplicated(["split", "label"]).any():
                groups["inside"].append(ids)
        kind = "bytes" if column == "file_digest" else "pixels"
        for name, found in groups.items():
            if found:
                level, where = WHERE[name]
                message = f"{len(found)} image(s) occur {where}, with {way}: {_and_more(found)}."
                details = {"groups": len(found), "examples": found[:EXAMPLES]}
                findings.append(Finding(level, message, f"duplicate-{kind}-{name}", details=details))
        if not any(groups.values()):
            message = f"No two of {len(known)} images have {way}."
            findings.append(Finding("ok", message, f"duplicate-{kind}", details={"pictures": len(known)}))
    return findings


def near_pairs(hashes: np.ndarray, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """All pairs of hashes that differ in at most `radius` bits, without comparing every pair.

    Cut into `radius + 1` bands, two such hashes agree in one band at least, so only hashes that share a band are
    compared.

    Args:
        hashes: `(n,)` uint64.
        radius: bits, 0 to 15.

    Yields:
        Indices `i`, indices `j` and distances, of the same length; each unordered pair once in all.
    """
    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius is {radius}, expected 0 to {MAX_RADIUS} of the 64 bits.")
    edges = np.linspace(0, 64, radius + 2).astype(int)
    bands = [(hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1) for low, high in pairwise(edges.tolist())]
    for number, band in enumerate(bands):
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.r_[True, band[order][1:] != band[order][:-1]])
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            bucket = order[start:stop]
            step = max(1, CELLS // len(bucket))
            for low in range(0, len(bucket) - 1, step):
                left, right = bucket[low : low + step, None], bucket[None, low:]
                distance = np.bitwise_count(hashes[left] ^ hashes[right])
                close = (distance <= radius) & (np.arange(right.size)[None] > np.arange(left.size)[:, None])
                for earlier in bands[:number]:  # pairs that share one of these were given there
                    close &= earlier[left] != earlier[right]
                i, j = np.nonzero(close)
                if i.size:
                    yield left[i, 0], right[0, j], distance[i, j]


def find_near_duplicates(rows: pd.DataFrame, radius: int) -> list[Finding]:
    """Pairs with nearly the same perceptual hash that are not exact copies of each other.

    Frames of the same video are not counted: they are always similar, and `find_overlaps` checks videos.

    Args:
        rows: images with `id`, `split`, `label`, `video_id`, `group_id`, `pixel_digest`, `perceptual_hash`.
        radius: bits of 64 in which the hashes may differ.
    """
    known = rows[rows["perceptual_hash"].notna()].drop_duplicates("pixel_digest").reset_index(drop=True)
    codes = {name: pd.factorize(known[name])[0] for name in ("split", "label", "video_id", "group_id")}
    ids = known["id"].to_numpy(dtype=object)
    pairs: Counter[str] = Counter()
    touched = {name: np.zeros(len(known), dtype=bool) for name in ("splits", "classes", "made-from", "inside")}
    examples: dict[str, list[Any]] = {name: [] for name in touched}
    for i, j, distance in near_pairs(known["perceptual_hash"].to_numpy(dtype=np.uint64), radius):
        differs = {name: values[i] != values[j] for name, values in codes.items()}
        video = (codes["video_id"][i] < 0) | differs["video_id"]  # unknown videos are taken for different ones
        same_group = ~differs["group_id"] & (codes["group_id"][i] >= 0)
        kinds = {
            "splits": differs["split"],
            "classes": ~differs["split"] & differs["label"] & ~same_group,
            "made-from": ~differs["split"] & differs["label"] & same_group,
            "inside": ~differs["split"] & ~differs["label"] & video,
        }
        for name, chosen in kinds.items():
            pairs[name] += int(chosen.sum())
            touched[name][i[chosen]] = touched[name][j[chosen]] = True
            for place in np.flatnonzero(chosen)[: EXAMPLES - len(examples[name])]:
                examples[name].append([ids[i[place]], ids[j[place]], int(distance[place])])
    findings = []
    for name, (level, text) in NEAR.items():
        count = pairs[name]
        details = {"pairs": count, "pictures": int(touched[name].sum()), "radius": radius, "examples": examples[name]}
        if count:
            shown = _and_more([pair[:2] for pair in examples[name]], count)
            how = f"perceptual hashes differ in at most {radius} of 64 bits"
            message = f"{count} pair(s) of images are {text} ({how}): {shown}."
            findings.append(Finding(level, message, f"near-duplicate-{name}", details=details))
        elif name == "classes" or (name == "splits" and known["split"].nunique() > 1):
            message = f"No two of {len(known)} images are {text} (perceptual hash, radius {radius})."
            findings.append(Finding("ok", message, f"near-duplicate-{name}", details=details))
    return findings


def _and_more(groups: list[list[str]], count: int | None = None) -> str:
    count = len(groups) if count is None else count
    shown = "; ".join(" = ".join(group[:4]) for group in groups[:3])
    return f"{shown}; and {count - 3} more" if count > 3 else shown


def find_overlaps(rows: pd.DataFrame) -> list[Finding]:
    """Videos, groups and sources that occur in more than one split.

    Args:
        rows: images with `split`, `video_id`, `group_id`, `target_id`, `source_id`, null where unknown.
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
                findings.append(Finding(level, text, code, details=details))
        if not any(shared.values()):
            text = f"No overlap of {name} between splits ({counted})."
            findings.append(Finding("ok", text, code, details={"shared": 0, "sizes": sizes}))
    if not findings:
        text = "Shared videos, persons and groups are unknown, so an overlap between splits cannot be ruled out."
        findings.append(Finding("note", text, "overlap-unknown"))
    return findings


def _unshared(part: pd.DataFrame) -> set[str]:
    """Groups that only repeat the id of their single image: their real groups are unknown."""
    return set(part.loc[part["group_id"] == part["id"], "group_id"])


def find_pairs(rows: pd.DataFrame) -> list[Finding]:
    """Fakes whose real original is in the same split: fine in an official split, a leak once it is split further."""
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
                f"{paired} of {len(fakes)} fake images of {split} have a real image with the same "
                f"{'target' if by == 'target_id' else 'group'} in the same split. Never split it further by image, "
                "but by group_id."
            )
            details = {"paired": paired, "fakes": len(fakes), "by": by}
            findings.append(Finding("note", message, "paired", str(split), details))
    return findings


def _first(values: set[str]) -> str:
    shown = ", ".join(sorted(values)[:3])
    return f"{shown} and {len(values) - 3} more" if len(values) > 3 else shown
