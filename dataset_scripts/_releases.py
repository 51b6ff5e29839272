"""Folders, lists and splits of official releases that several builders read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ._builder import components
from ._files import first_names, inner_path, read_json, read_table, read_text, stable_id

__all__ = [
    "CELEB_FOLDERS",
    "CELEB_LIST",
    "CROSSING_PAIRS",
    "DFDCP_FOLDERS",
    "DFDCP_LIST",
    "FF_LEVELS",
    "FF_LISTS",
    "Pairs",
    "crossing_pairs",
    "describe_crossing",
    "group_videos",
    "level_folder",
    "list_path",
    "mask_place",
    "read_celeb_list",
    "read_deeper_lists",
    "read_dfdcp_list",
    "read_splits",
    "related_videos",
    "video_names",
]

Pairs = list[tuple[str, str]]

# Pairs from the same YouTube video that are in different official splits (from the authors' conversion_dict.json).
CROSSING_PAIRS = (
    ("755", "756"), ("955", "954"), ("606", "605"), ("640", "639"), ("837", "838"), ("875", "876"), ("982", "983"),
)  # fmt: skip
FF_LEVELS = {"raw": ("raw", "c0"), "c23": ("c23",), "c40": ("c40",)}  # some scripts use c0 for raw
FF_LISTS = {"train": "train.json", "validation": "val.json", "test": "test.json"}
CELEB_FOLDERS = {"Celeb-real": "real", "YouTube-real": "real", "Celeb-synthesis": "fake"}
CELEB_LIST = "List_of_testing_videos.txt"
CELEB_LABELS = {"1": "real", "0": "fake"}  # the opposite of everywhere else
DFDCP_LIST = "dataset.json"
DFDCP_FOLDERS = {"original_videos": "real", "method_A": "fake", "method_B": "fake"}
DFDCP_SETS = ("train", "test")
DEEPER_SPLITS = {"train": "train", "val": "validation", "test": "test"}
DEEPER_NAME = re.compile(r"(\d{3})_([MW]\d{3})")  # video of FaceForensics++, actor; M and W: men and women


def level_folder(folder: Path, compression: str) -> Path:
    """Return the folder of a compression level below that of a method."""
    names = FF_LEVELS[compression]
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])


def mask_place(method: Path, container: Path, source: str, video: str) -> Path:
    """Return the expected location of the masks of a fake.

    Args:
        method: the folder of the manipulation. Masks exist once per method, not per compression level.
        container: its folder for one level.
        source: source of the frames. Cropped frames (`"frames"`) have their own masks, next to those of c23; whole
            frames share `masks/`.
        video: name of the fake video.
    """
    if source == "frames":
        own = container / "masks" / video
        return own if own.is_dir() else method / "c23" / "masks" / video
    extracted = method / "masks" / "images" / video
    return extracted if extracted.is_dir() else method / "masks" / "videos" / f"{video}.mp4"


def list_path(root: Path, name: str) -> Path:
    """Return the location of a split list: in `splits/` or next to the data."""
    nested = root / "splits" / name
    return nested if nested.is_file() else root / name


def read_splits(root: Path, lists: Mapping[str, str], remedy: str) -> dict[str, Pairs]:
    """Return the pairs of video ids of each split.

    Raises:
        FileNotFoundError: for a missing list.
        ValueError: naming the list, if it is not a list of pairs, or if a video is listed twice.
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
                raise ValueError(f"The video {video} is in both {path} and {seen[video]}. Download the lists again.")
            seen[video] = path
        splits[split] = [(a, b) for a, b in pairs]
    return splits


def video_names(pairs: Pairs, real: bool) -> list[tuple[str, ...]]:
    """Return the videos of a class in the order of the list: each original, or fakes in both directions."""
    if real:
        return [(video,) for pair in pairs for video in pair]
    return [names for a, b in pairs for names in ((a, b), (b, a))]


def crossing_pairs(splits: Mapping[str, Pairs]) -> list[str]:
    """Return the known pairs that are in both splits, as text."""
    where = {video: split for split, pairs in splits.items() for pair in pairs for video in pair}
    return [
        f"{a} ({where[a]}) / {b} ({where[b]})"
        for a, b in CROSSING_PAIRS
        if a in where and b in where and where[a] != where[b]
    ]


def group_videos(splits: Mapping[str, Pairs]) -> dict[str, str]:
    """Return the group of every video: pairs were swapped with each other, and crossing pairs share a source."""
    return related_videos(pair for pairs in splits.values() for pair in pairs)


def related_videos(links: Iterable[Sequence[str]], prefix: str = "") -> dict[str, str]:
    """Return the group of every video or person; two parts of one YouTube video are one source.

    Args:
        links: sequences of FaceForensics++ videos that share material; other videos may be included.
        prefix: prefix of FaceForensics++ ids in `links`.
    """
    found = list(links)
    present = {name for names in found for name in names}
    crossing = [tuple(f"{prefix}{video}" for video in pair) for pair in CROSSING_PAIRS]
    return components([*found, *(pair for pair in crossing if present.issuperset(pair))])


def describe_crossing(crossing: list[str]) -> str:
    """Return a sentence for `check`."""
    return (
        f"{len(crossing)} pair(s) of originals from the same YouTube video are in different official splits: "
        f"{first_names(crossing, limit=len(CROSSING_PAIRS))}."
    )


def read_celeb_list(path: Path, remedy: str) -> dict[str, str]:
    """Return `<folder>/<name>` without extension -> label for every line of the official list.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: naming the line: wrong format, a label that contradicts the folder, or a video listed twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; without it there is no test split. {remedy}")
    by_case = {name.casefold(): name for name in CELEB_FOLDERS}
    listed: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        digit, _, file = line.strip().partition(" ")
        video = PurePosixPath(file.strip())
        if digit not in CELEB_LABELS or video.parent.name.casefold() not in by_case:
            raise ValueError(f"{where} is {line!r}, expected '<1|0> <{'|'.join(CELEB_FOLDERS)}>/<name>.mp4'.")
        folder = by_case[video.parent.name.casefold()]
        if CELEB_LABELS[digit] != CELEB_FOLDERS[folder]:
            raise ValueError(
                f"{where} calls {file.strip()} {CELEB_LABELS[digit]} (1 is real), but {folder} is for "
                f"{CELEB_FOLDERS[folder]} videos. Download the official list again."
            )
        key = stable_id(folder, video.stem)
        if key in listed:
            raise ValueError(f"{where} has {file.strip()} a second time.")
        listed[key] = CELEB_LABELS[digit]
    return listed


def read_dfdcp_list(path: Path, remedy: str) -> dict[str, dict[str, Any]]:
    """Return path of a video -> its row, in the order of the list.

    Raises:
        FileNotFoundError: if the list is missing.
        ValueError: naming the video: a path outside the folder, an unknown set, or a label that contradicts its
            folder.
    """
    listed = {}
    for name, row in read_table(path, remedy).items():
        inner = inner_path(name, str(path))
        where = f"{path}, {name}"
        if inner.parts[0] not in DFDCP_FOLDERS:
            raise ValueError(f"{where} is in {inner.parts[0]!r}, expected one of {', '.join(DFDCP_FOLDERS)}.")
        if row.get("label") != DFDCP_FOLDERS[inner.parts[0]]:
            raise ValueError(
                f"{where} has label {row.get('label')!r}, but is in a folder of {DFDCP_FOLDERS[inner.parts[0]]} "
                "videos. Download the list again."
            )
        if row.get("set") not in DFDCP_SETS:
            raise ValueError(f"{where} has set {row.get('set')!r}, expected train or test.")
        listed[inner.as_posix()] = row
    return listed


def read_deeper_lists(folder: Path, remedy: str) -> dict[str, list[tuple[str, str]]]:
    """Return FaceForensics++ id and actor of the fakes of each split.

    Raises:
        FileNotFoundError: for a missing list.
        ValueError: naming the line: a name in another format, or a video listed twice.
    """
    seen: dict[str, str] = {}
    splits: dict[str, list[tuple[str, str]]] = {}
    for name, split in DEEPER_SPLITS.items():
        path = folder / f"{name}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing. {remedy}")
        splits[split] = []
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            video = PurePosixPath(line.strip()).stem
            match = DEEPER_NAME.fullmatch(video)
            if match is None:
                raise ValueError(f"{where} is {line!r}, expected a fake video such as 000_M101.mp4.")
            if video in seen:
                raise ValueError(f"The video {video} is in both {where} and {seen[video]}. Download the lists again.")
            seen[video] = where
            splits[split].append((match.group(1), match.group(2)))
    return splits
