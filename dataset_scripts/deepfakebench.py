"""Preprocessed frames in the JSON form of DeepfakeBench, with the defects of its generator repaired and reported.

Yan et al., "DeepfakeBench" (NeurIPS 2023); also used by DF40. Expected:

    {set: {group: {train|val|test: {[raw|c23|c40:] {video: {"label": text, "frames": [path, ...]}}}}}}

and the frames below data_dir, under the data set's own folder (`Celeb-DF-v2/Celeb-real/frames/<video>/<NNN>.png`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import datasets

from .celeb_df import TEST_LIST, read_test_list
from .common import RawConfig, Unit, components
from .ffpp_splits import CROSSING_PAIRS, list_path, read_splits
from .frames import FrameBuilder, natural_order, spread
from .raw_files import first_names, is_picture, read_json, refuse_outside, stable_id

__all__ = ["DeepfakeBench", "DeepfakeBenchConfig", "label_of_group", "relative_path"]

VERSION = datasets.Version("1.0.0")
LEVELS = ("raw", "c0", "c23", "c40")
SPLITS = {"train": "train", "val": "validation", "test": "test"}
KEEP_FIRST = ("test", "validation", "train")  # where a video of several splits stays
FACEFORENSICS = "FaceForensics++"
FF_GROUPS = {  # group -> folder, family
    "FF-real": ("real", None),
    "FF-DF": ("Deepfakes", "swap"),
    "FF-F2F": ("Face2Face", "reenact"),
    "FF-FS": ("FaceSwap", "swap"),
    "FF-NT": ("NeuralTextures", "reenact"),
    "FF-FH": ("FaceShifter", "swap"),
}
METHODS = {
    "DFD": "deepfakedetection",
    "CelebDFv1": "celeb_synthesis",
    "CelebDFv2": "celeb_synthesis",
    "DFDC": "dfdc",
    "DFDCP_FakeA": "method_A",
    "DFDCP_FakeB": "method_B",
}
FOLDERS = frozenset(  # where a path of another machine starts to mean something
    {
        FACEFORENSICS,
        "Celeb-DF-v1",
        "Celeb-DF-v2",
        "DFDC",
        "DFDCP",
        "DeeperForensics-1.0",
        "UADFV",
        "DF40",
        "DF40_train",
    }
)


@dataclass
class DeepfakeBenchConfig(RawConfig):
    """One JSON file.

    Args:
        json: the file, absolute or below data_dir.
        compression: the level to read where the file has several.
        frames_per_video: that many, spread evenly; 0 for all that are listed.
        masks: add the column `mask` for the fakes that the file lists masks of.
        prefix_map: replacements for the beginnings of paths that the rules do not resolve.
    """

    json: str = ""
    compression: str = "c23"
    frames_per_video: int = 0
    masks: bool = False
    prefix_map: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise a `ValueError` for a value outside its allowed set."""
        super().check()
        if not self.json:
            raise ValueError("Say which file to read: json='Celeb-DF-v2.json' (below data_dir, or absolute).")
        if self.compression not in LEVELS:
            raise ValueError(f"compression is {self.compression!r}, expected one of {', '.join(LEVELS)}.")
        if self.frames_per_video < 0:
            raise ValueError(f"frames_per_video is {self.frames_per_video}, expected a number, or 0 for all frames.")


class Record(NamedTuple):
    """A video of the file."""

    group: str
    split: str
    level: str | None
    name: str
    frames: list[str]
    masks: bool

    @property
    def key(self) -> tuple[str, str]:
        return self.group, self.name


class DeepfakeBench(FrameBuilder):
    """Frames listed by a DeepfakeBench JSON file.

    Repaired, each with a finding: videos listed in several splits (kept in the test, so that nothing tested is trained
    on), splits that differ from the official lists where those are present, records in the place of a split, paths of
    another machine or of Windows, unsorted frames. A frame that is listed but absent is an error.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = DeepfakeBenchConfig
    BUILDER_CONFIGS = [DeepfakeBenchConfig(name="default", version=VERSION)]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "DeepfakeBench JSON"
    SHIPS_MASKS = True
    TERMS = "Those of the data set behind the file; the preprocessed frames fall under them too."
    LAYOUT = "<json>: {set: {group: {split: {[level:] {video: {label, frames}}}}}}, frames below data_dir"
    REMEDY = "Point data_dir at the rgb folder (rgb_dir of DeepfakeBench) and json at one of its dataset_json files."
    HOMEPAGE = "https://github.com/SCLBD/DeepfakeBench"

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """One unit per video, in the order of the file."""
        path = root / self.config.json
        content = read_json(path, self.REMEDY)
        if not isinstance(content, dict) or len(content) != 1 or not isinstance(next(iter(content.values())), dict):
            raise ValueError(f"{path} should hold one data set, {{name: {{group: {{split: ...}}}}}}.")
        ((name, groups),) = content.items()
        records = list(self._records(path, groups))
        if not records:
            raise ValueError(f"{path} lists no videos at compression {self.config.compression}.")
        splits = self._repair_splits(root, name, records)
        related = _related(records)
        found: dict[str, list[Unit]] = {split: [] for split in SPLITS.values()}
        tally: Counter[str] = Counter()
        read: set[Path] = set()
        for record in records:
            split = splits.pop(record.key, None)  # once per video, however often it is listed
            if split is not None:
                unit = self._unit(root, name, record, related, tally, read)
                if unit is not None:
                    found[split].append(unit)
        self._report_unlisted(read)
        self.report("note", f"{tally['found']} of {tally['listed']} listed frames are there.")
        return found

    def _records(self, path: Path, groups: dict[str, Any]) -> Iterator[Record]:
        skipped: list[str] = []
        for group, splits in groups.items():
            label = label_of_group(group)
            for split, node in splits.items():
                if split not in SPLITS or not isinstance(node, dict):
                    skipped.append(f"{group}/{split}")
                    continue
                for level, name, value in _videos(node):
                    where = f"{group}/{split}/{name}"
                    if not isinstance(value, dict) or not isinstance(value.get("frames"), list):
                        skipped.append(where)
                        continue
                    if level is not None and level != self.config.compression:
                        continue
                    own = value.get("label")
                    if isinstance(own, str) and label_of_group(own) != label:
                        raise ValueError(f"{path}: {where} is labelled {own!r} in a {label} group. Correct the file.")
                    yield Record(group, SPLITS[split], level, name, value["frames"], bool(value.get("masks")))
        if skipped:
            self.report("warning", f"{len(skipped)} entries are no videos, skipped: {first_names(skipped)}.")

    def _repair_splits(self, root: Path, name: str, records: list[Record]) -> dict[tuple[str, str], str]:
        """The split of each video."""
        listed: dict[tuple[str, str], set[str]] = {}
        for record in records:
            listed.setdefault(record.key, set()).add(record.split)
        several = [f"{group}/{video}" for (group, video), found in listed.items() if len(found) > 1]
        if several:
            self.report(
                "warning",
                f"{len(several)} videos are listed in several splits, each kept in one, the test before the others: "
                f"{first_names(several)}.",
            )
        splits = {key: next(split for split in KEEP_FIRST if split in found) for key, found in listed.items()}
        official = self._official_splits(root, name, records)
        moved = [key for key, split in official.items() if splits[key] != split]
        if moved:
            self.report(
                "warning",
                f"{len(moved)} videos moved to their official split: {first_names('/'.join(key) for key in moved)}.",
            )
        return splits | official

    def _official_splits(self, root: Path, name: str, records: list[Record]) -> dict[tuple[str, str], str]:
        """What the official list says, where it lies in the data set's folder."""
        if name.startswith("Celeb-DF"):
            folder = root / name if (root / name).is_dir() else root
            if not (folder / TEST_LIST).is_file():
                self.report("error", f"{folder / TEST_LIST} is missing: the test split cannot be compared with it.")
                return {}
            tested = read_test_list(folder / TEST_LIST, self.REMEDY)
            keys = {record.key: _celeb_name(record) for record in records}
            absent = sorted(set(tested) - set(keys.values()))
            if absent:
                self.report(
                    "error", f"{len(absent)} videos of {TEST_LIST} are not in the file: {first_names(absent)}."
                )
            splits = {key: "test" if video in tested else "train" for key, video in keys.items()}
            trained = {keys[key].split("/")[0] for key, split in splits.items() if split == "train"}
            lost = sorted({"Celeb-real", "YouTube-real"} - trained)
            if lost:
                self.report(
                    "error",
                    f"The file lost the training videos of {', '.join(lost)}; read the tree with builder celeb_df.",
                )
            return splits
        folder = root / FACEFORENSICS
        lists = {"train": "train.json", "validation": "val.json", "test": "test.json"}
        if any(record.group in FF_GROUPS for record in records) and list_path(folder, lists["test"]).is_file():
            pairs = read_splits(folder, lists, self.REMEDY)
            where = {video: split for split, found in pairs.items() for pair in found for video in pair}
            return {r.key: where[r.name.split("_")[0]] for r in records if r.name.split("_")[0] in where}
        return {}

    def _unit(
        self, root: Path, name: str, record: Record, related: dict[str, str], tally: Counter[str], read: set[Path]
    ) -> Unit | None:
        present = []
        for listed in record.frames:
            path = self._resolve(root, listed)
            tally["listed"] += 1
            if path is None:
                self.missing.append(listed)
            else:
                present.append(path)
        tally["found"] += len(present)
        read.update(present)
        if not present:
            self.missing.append(f"{record.group}/{record.name} (no frames)")
            return None
        folder = Path(os.path.commonpath([path.parent for path in present]))
        names = sorted((path.relative_to(folder).as_posix() for path in present), key=natural_order)
        chosen = tuple(names[index] for index in spread(len(names), self.config.frames_per_video))
        method, family = FF_GROUPS.get(record.group, (_method(record.group), None))
        videos = record.name.split("_")
        swapped = record.group in FF_GROUPS and method != "real" and len(videos) == 2
        video = stable_id(
            *((FACEFORENSICS, method) if record.group in FF_GROUPS else (name, record.group)), record.name
        )
        columns = {
            "label": label_of_group(record.group),
            "manipulation": method,
            "family": family,
            "video_id": video,
            "group_id": f"{FACEFORENSICS}/{related[videos[0]]}" if record.group in FF_GROUPS else video,
            "target_id": videos[0] if record.group in FF_GROUPS else None,
            "source_id": videos[1] if swapped else None,
            "compression": record.level,
            "category": "face",
        }
        identity = stable_id("deepfakebench", name, record.level or "-", record.group, record.name)
        masks = _mask_folder(root, folder) if record.masks else None
        return self.with_masks(root, Unit(identity, str(folder), columns, chosen), masks)

    def _report_unlisted(self, read: set[Path]) -> None:
        """Frames and videos that lie beside the listed ones."""
        folders = {path.parent for path in read}
        beside = [path for folder in sorted(folders) for path in sorted(folder.iterdir()) if is_picture(path)]
        extra = [path for path in beside if path not in read]
        above = {parent for folder in folders for parent in folder.parents}
        for container in sorted({folder.parent for folder in folders}):
            there = [path for path in sorted(container.iterdir()) if path.is_dir()]
            extra += [path for path in there if path not in folders and path not in above]
        if extra:
            self.report("warning", f"{len(extra)} frames or videos are not listed, not read: {first_names(extra)}.")

    def _resolve(self, root: Path, listed: str) -> Path | None:
        for prefix, replacement in self.config.prefix_map.items():
            if listed.startswith(prefix):
                listed = replacement + listed[len(prefix) :]
                break
        relative = relative_path(listed)
        candidates = [root / relative]
        if relative.parts and relative.parts[0] == root.name:
            candidates.append(root.joinpath(*relative.parts[1:]))
        for path in candidates:
            if path.is_file():
                refuse_outside(root, path)
                return path
        return None


def label_of_group(group: str) -> str:
    """`real` or `fake` by the end of a group's name; never by what it contains: `whichisreal_Fake` is fake.

    Raises:
        ValueError: for a name without such an end.
    """
    if group in FF_GROUPS:
        return "real" if group == "FF-real" else "fake"
    end = group.rsplit("_", 1)[-1].casefold()
    if end in ("real", "fake"):
        return end
    if end in ("fakea", "fakeb"):
        return "fake"
    raise ValueError(
        f"Group {group!r} says neither real nor fake; known are names ending in _Real or _Fake, and FF-*."
    )


def relative_path(listed: str) -> PurePosixPath:
    """A listed path without the machine it was made on: from the first known data set folder on.

    Raises:
        ValueError: for a path with `..` in it.
    """
    parts = [part for part in listed.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"{listed} leads out of its folder; correct the file that lists it.")
    if parts and parts[0].endswith(":"):
        parts = parts[1:]
    start = next((number for number, part in enumerate(parts) if part in FOLDERS), 0)
    return PurePosixPath(*parts[start:])


def _videos(node: dict[str, Any]) -> Iterator[tuple[str | None, str, Any]]:
    """Level, name and value of what a split holds; of a record in a split's place, its fields, which are no videos."""
    for name, value in node.items():
        if name in LEVELS and isinstance(value, dict) and "frames" not in value:
            yield from ((name, video, record) for video, record in value.items())
        else:
            yield None, name, value


def _mask_folder(root: Path, frames: Path) -> Path:
    """Beside the frames: only the last `frames` of the path means them. Masks exist once per method, under c23."""
    parts = list(frames.relative_to(root).parts)
    if "frames" in parts:
        parts[len(parts) - 1 - parts[::-1].index("frames")] = "masks"
    masks = root.joinpath(*parts)
    return masks if masks.is_dir() else root.joinpath(*("c23" if part in LEVELS else part for part in parts))


def _method(group: str) -> str:
    if label_of_group(group) == "real":
        return "real"
    return METHODS.get(group) or METHODS.get(group.rsplit("_", 1)[0]) or group.rsplit("_", 1)[0]


def _celeb_name(record: Record) -> str:
    """`<folder>/<video>` as in the official list, from the first frame's path."""
    parts = relative_path(record.frames[0]).parts if record.frames else ()
    return stable_id(parts[1] if len(parts) > 1 else record.group, record.name)


def _related(records: list[Record]) -> dict[str, str]:
    names = [tuple(record.name.split("_")) for record in records if record.group in FF_GROUPS]
    present = {video for videos in names for video in videos}
    return components([*names, *(pair for pair in CROSSING_PAIRS if present.issuperset(pair))])
