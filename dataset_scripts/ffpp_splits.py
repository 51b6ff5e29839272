"""The official splits of FaceForensics++, which several forms of the data set share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .common import components
from .raw_files import first_names, read_json

__all__ = [
    "CROSSING_PAIRS",
    "Pairs",
    "crossing_pairs",
    "describe_crossing",
    "group_videos",
    "list_path",
    "read_splits",
    "video_names",
]

Pairs = list[tuple[str, str]]

# Two stretches of one YouTube video on both sides of the official split (from the authors' conversion_dict.json).
CROSSING_PAIRS = (
    ("755", "756"), ("955", "954"), ("606", "605"), ("640", "639"), ("837", "838"), ("875", "876"), ("982", "983"),
)  # fmt: skip


def list_path(root: Path, name: str) -> Path:
    """Where a split list lies: in `splits/`, or beside the data."""
    nested = root / "splits" / name
    return nested if nested.is_file() else root / name


def read_splits(root: Path, lists: Mapping[str, str], remedy: str) -> dict[str, Pairs]:
    """The pairs of video ids of each split.

    Raises:
        FileNotFoundError: for a missing list.
        ValueError: naming the list, if it is no list of pairs, or if a video is listed twice.
    """
    seen: dict[str, Path] = {}
    splits = {}
    for split, name in lists.items():
        path = list_path(root, name)
        pairs: Any = read_json(path, remedy)
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(video, str) for video in pair)
            for pair in pairs
        ):
            raise ValueError(f"{path} should be a list of pairs of video ids, such as [['003', '017']].")
        for video in (video for pair in pairs for video in pair):
            if video in seen:
                raise ValueError(
                    f"{path} lists the video {video}, which {seen[video]} lists too. Fetch the lists again."
                )
            seen[video] = path
        splits[split] = [(a, b) for a, b in pairs]
    return splits


def video_names(pairs: Pairs, real: bool) -> list[tuple[str, ...]]:
    """The videos of a class in the order of the list: originals one by one, fakes in both directions."""
    if real:
        return [(video,) for pair in pairs for video in pair]
    return [names for a, b in pairs for names in ((a, b), (b, a))]


def crossing_pairs(splits: Mapping[str, Pairs]) -> list[str]:
    """Which of the known pairs lie on both sides, as text."""
    where = {video: split for split, pairs in splits.items() for pair in pairs for video in pair}
    return [
        f"{a} ({where[a]}) / {b} ({where[b]})"
        for a, b in CROSSING_PAIRS
        if a in where and b in where and where[a] != where[b]
    ]


def group_videos(splits: Mapping[str, Pairs]) -> dict[str, str]:
    """The group of every video: pairs were swapped with each other, and crossing pairs share their source."""
    listed: Iterable[tuple[str, str]] = [pair for pairs in splits.values() for pair in pairs]
    present = {video for pair in listed for video in pair}
    return components([*listed, *(pair for pair in CROSSING_PAIRS if present.issuperset(pair))])


def describe_crossing(crossing: list[str]) -> str:
    """A sentence for `check`."""
    return (
        f"{len(crossing)} pair(s) of originals from one YouTube video cross the official splits: "
        f"{first_names(crossing, limit=len(CROSSING_PAIRS))}."
    )
