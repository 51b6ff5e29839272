"""Official lists of splits and labels, which a data set's own tree and the community's frames of it are read by."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from .raw_files import inner_path, read_table, stable_id

__all__ = [
    "CELEB_FOLDERS",
    "CELEB_LIST",
    "DFDCP_FOLDERS",
    "DFDCP_LIST",
    "read_celeb_list",
    "read_deeper_lists",
    "read_dfdcp_list",
]

CELEB_FOLDERS = {"Celeb-real": "real", "YouTube-real": "real", "Celeb-synthesis": "fake"}
CELEB_LIST = "List_of_testing_videos.txt"
CELEB_LABELS = {"1": "real", "0": "fake"}  # the other way round than everywhere else
DFDCP_LIST = "dataset.json"
DFDCP_FOLDERS = {"original_videos": "real", "method_A": "fake", "method_B": "fake"}
DFDCP_SETS = ("train", "test")
DEEPER_SPLITS = {"train": "train", "val": "validation", "test": "test"}
DEEPER_NAME = re.compile(r"(\d{3})_([MW]\d{3})")  # video of FaceForensics++, actor; M and W: men and women


def read_celeb_list(path: Path, remedy: str) -> dict[str, str]:
    """`<folder>/<name>` without extension -> label of every line of the official list.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: naming the line: wrong form, a label that contradicts the folder, or a video listed twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; without it there is no test split. {remedy}")
    by_case = {name.casefold(): name for name in CELEB_FOLDERS}
    listed: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
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
                f"{where} calls {file.strip()} {CELEB_LABELS[digit]} (1 is real), but {folder} holds "
                f"{CELEB_FOLDERS[folder]} videos. Fetch the official list again."
            )
        key = stable_id(folder, video.stem)
        if key in listed:
            raise ValueError(f"{where} lists {file.strip()} a second time.")
        listed[key] = CELEB_LABELS[digit]
    return listed


def read_dfdcp_list(path: Path, remedy: str) -> dict[str, dict[str, Any]]:
    """Path of a video -> its row, in the order of the list.

    Raises:
        FileNotFoundError: if the list is missing.
        ValueError: naming the video: a path out of the folder, an unknown set, or a label against its folder.
    """
    listed = {}
    for name, row in read_table(path, remedy).items():
        inner = inner_path(name, str(path))
        where = f"{path}, {name}"
        if inner.parts[0] not in DFDCP_FOLDERS:
            raise ValueError(f"{where} lies in {inner.parts[0]!r}, expected one of {', '.join(DFDCP_FOLDERS)}.")
        if row.get("label") != DFDCP_FOLDERS[inner.parts[0]]:
            raise ValueError(
                f"{where} has label {row.get('label')!r}, but lies in a folder of "
                f"{DFDCP_FOLDERS[inner.parts[0]]} videos. Fetch the list again."
            )
        if row.get("set") not in DFDCP_SETS:
            raise ValueError(f"{where} has set {row.get('set')!r}, expected train or test.")
        listed[inner.as_posix()] = row
    return listed


def read_deeper_lists(folder: Path, remedy: str) -> dict[str, list[tuple[str, str]]]:
    """FaceForensics++ id and actor of the fakes of each split.

    Raises:
        FileNotFoundError: for a missing list.
        ValueError: naming the line: another form of name, or a video listed twice.
    """
    seen: dict[str, str] = {}
    splits: dict[str, list[tuple[str, str]]] = {}
    for name, split in DEEPER_SPLITS.items():
        path = folder / f"{name}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing. {remedy}")
        splits[split] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            video = PurePosixPath(line.strip()).stem
            match = DEEPER_NAME.fullmatch(video)
            if match is None:
                raise ValueError(f"{where} is {line!r}, expected a fake video such as 000_M101.mp4.")
            if video in seen:
                raise ValueError(f"{where} lists {video}, which {seen[video]} lists too. Fetch the lists again.")
            seen[video] = where
            splits[split].append((match.group(1), match.group(2)))
    return splits
