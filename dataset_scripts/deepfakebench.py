"""Preprocessed frames in DeepfakeBench's JSON format; known defects of its generator are repaired and reported.

Yan et al., "DeepfakeBench" (NeurIPS 2023); also used by DF40. Expected:

    {set: {group: {train|val|test: {[raw|c23|c40:] {video: {"label": text, "frames": [path, ...]}}}}}}

and the frames below data_dir, under the dataset's own folder (`Celeb-DF-v2/Celeb-real/frames/<video>/<NNN>.png`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import datasets

from ._archives import find_key, mask_key, read_value, store_file
from ._builder import INSIDE, RawConfig, Unit, unit_columns
from ._deepfakebench import (
    ALIASES,
    FACEFORENSICS,
    FF_GROUPS,
    LEVELS,
    SPLITS,
    Record,
    label_of_group,
    manipulation_of_group,
    read_records,
    relative_path,
    shared_material,
    target_and_source,
)
from ._files import first_names, is_picture, refuse_outside, stable_id
from ._frames import FrameBuilder, beside_frames, frame_key, natural_order, spread
from ._releases import (
    CELEB_LIST,
    DFDCP_LIST,
    FF_LISTS,
    list_path,
    read_celeb_list,
    read_deeper_lists,
    read_dfdcp_list,
    read_splits,
    related_videos,
)

__all__ = ["DeepfakeBench", "DeepfakeBenchConfig"]

VERSION = datasets.Version("1.0.0")
KEEP_FIRST = ("test", "validation", "train")  # the split that keeps a video listed in several
DF40_SECTIONS = {"DF40_train": "train", "DF40": "test"}


@dataclass
class DeepfakeBenchConfig(RawConfig):
    """One JSON file of DeepfakeBench.

    Args:
        json: the file, absolute or below data_dir.
        compression: the level to read if the file has several.
        frames_per_video: number of frames, evenly spaced; 0 for all listed frames.
        masks: add the column `mask` for fakes with masks in the file.
        lmdb: read the frames from `<set>_lmdb/data.mdb` instead of their folders.
        prefix_map: replacements for prefixes of paths that the rules do not resolve.
    """

    json: str = ""
    compression: str = "c23"
    frames_per_video: int = 0
    masks: bool = False
    lmdb: bool = False
    prefix_map: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        if not self.json:
            raise ValueError("Pass the file to read: json='Celeb-DF-v2.json' (relative to data_dir, or absolute).")
        if self.compression not in LEVELS:
            raise ValueError(f"compression is {self.compression!r}, expected one of {', '.join(LEVELS)}.")
        if self.frames_per_video < 0:
            raise ValueError(
                f"frames_per_video is {self.frames_per_video}, expected a positive number, or 0 for all frames."
            )


class DeepfakeBench(FrameBuilder):
    """Frames listed by a DeepfakeBench JSON file.

    These are repaired, each with a finding: videos in several splits (kept in the test split, so that no test video is
    used for training), splits that differ from official lists if those are present, records in place of a split, paths
    from another machine or Windows, and unsorted frames. A listed frame that does not exist is an error.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = DeepfakeBenchConfig
    BUILDER_CONFIGS = [DeepfakeBenchConfig(name="default", version=VERSION)]
    DEFAULT_CONFIG_NAME = "default"
    spellings: dict[Path, dict[str, str]]  # names in a folder, ignoring case
    NAME = "DeepfakeBench JSON"
    SHIPS_MASKS = True
    TERMS = "The terms of the original dataset, which also apply to the preprocessed frames."
    LAYOUT = "<json>: {set: {group: {split: {[level:] {video: {label, frames}}}}}}, frames below data_dir"
    REMEDY = "Point data_dir at the rgb folder (rgb_dir of DeepfakeBench) and json at one of its dataset_json files."
    HOMEPAGE = "https://github.com/SCLBD/DeepfakeBench"

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per video, in the order of the file."""
        self.spellings = {}
        path = root / self.config.json
        name, records = read_records(path, self.config.compression, self.REMEDY, self.report)
        splits = self._repair_splits(root, name, records)
        people = {record.key: shared_material(name, record) for record in records}
        related = related_videos((parts for parts in people.values() if parts), f"{FACEFORENSICS}/")
        unknown = [f"{group}/{video}" for (group, video), parts in people.items() if not parts]
        if unknown:
            self.report(
                "warning",
                f"{len(unknown)} videos have names that do not show shared material, so each is its own group: "
                f"{first_names(unknown)}. Do not split them further by video.",
            )
        found: dict[str, list[Unit]] = {split: [] for split in SPLITS.values()}
        tally: Counter[str] = Counter()
        read: set[Path] = set()
        for record in records:
            split = splits.pop(record.key, None)  # once per video, even if it is listed several times
            if split is not None:
                unit = self._unit(root, name, record, people[record.key], related, tally, read)
                if unit is not None:
                    found[split].append(unit)
        self._report_unlisted(read)
        self.report("note", f"{tally['found']} of {tally['listed']} listed frames exist.")
        return found

    def _repair_splits(self, root: Path, name: str, records: list[Record]) -> dict[tuple[str, str], str]:
        """Return the split of each video."""
        listed: dict[tuple[str, str], set[str]] = {}
        for record in records:
            listed.setdefault(record.key, set()).add(record.split)
        several = [f"{group}/{video}" for (group, video), found in listed.items() if len(found) > 1]
        if several:
            self.report(
                "warning",
                f"{len(several)} videos are listed in several splits and kept in only one, preferably test: "
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
        """Return the official splits, if their list is in the dataset's folder."""
        folder = root / name if (root / name).is_dir() else root
        if name.startswith("Celeb-DF"):
            return self._celeb_splits(folder, records)
        if name == "DFDCP" and (folder / DFDCP_LIST).is_file():
            rows = read_dfdcp_list(folder / DFDCP_LIST, self.REMEDY)
            where = {f"{path.split('/')[0]}/{PurePosixPath(path).stem}": row["set"] for path, row in rows.items()}
            return {r.key: where[_listed_name(r)] for r in records if _listed_name(r) in where}
        if name.startswith("DeeperForensics"):
            reals = {record.name for record in records if label_of_group(record.group) == "real"}
            if reals:
                self.report(
                    "error", f"{len(reals)} videos of actors are labelled real, but the real class is FaceForensics++."
                )
            if (folder / "lists" / "splits").is_dir():
                listed = read_deeper_lists(folder / "lists" / "splits", self.REMEDY)
                where = {"_".join(pair): split for split, pairs in listed.items() for pair in pairs}
                return {r.key: where[r.name] for r in records if r.name in where}
        return self._df40_splits(records) | self._faceforensics_splits(root / FACEFORENSICS, records)

    def _celeb_splits(self, folder: Path, records: list[Record]) -> dict[tuple[str, str], str]:
        if not (folder / CELEB_LIST).is_file():
            self.report("error", f"{folder / CELEB_LIST} is missing, so the test split cannot be compared with it.")
            return {}
        tested = read_celeb_list(folder / CELEB_LIST, self.REMEDY)
        keys = {record.key: _listed_name(record) for record in records}
        absent = sorted(set(tested) - set(keys.values()))
        if absent:
            self.report("error", f"{len(absent)} videos of {CELEB_LIST} are not in the file: {first_names(absent)}.")
        splits = {key: "test" if video in tested else "train" for key, video in keys.items()}
        trained = {keys[key].split("/")[0] for key, split in splits.items() if split == "train"}
        lost = sorted({"Celeb-real", "YouTube-real"} - trained)
        if lost:
            self.report(
                "error",
                f"The file lacks the training videos of {', '.join(lost)}; read the original folders with the "
                "builder celeb_df.",
            )
        return splits

    def _df40_splits(self, records: list[Record]) -> dict[tuple[str, str], str]:
        """Determined by the folder of the frames, because some files of DF40 list every fake in all splits."""
        first = {record.key: _first_folder(record) for record in records}
        return {key: DF40_SECTIONS[folder] for key, folder in first.items() if folder in DF40_SECTIONS}

    def _faceforensics_splits(self, folder: Path, records: list[Record]) -> dict[tuple[str, str], str]:
        if not list_path(folder, "test.json").is_file():
            return {}
        pairs = read_splits(folder, FF_LISTS, self.REMEDY)
        where = {video: split for split, found in pairs.items() for pair in found for video in pair}
        ours = [record for record in records if _first_folder(record) == FACEFORENSICS]
        return {r.key: where[r.name.split("_")[0]] for r in ours if r.name.split("_")[0] in where}

    def _unit(
        self,
        root: Path,
        name: str,
        record: Record,
        people: tuple[str, ...],
        related: dict[str, str],
        tally: Counter[str],
        read: set[Path],
    ) -> Unit | None:
        present: dict[PurePosixPath, Any] = {}
        for listed in record.frames:
            relative = relative_path(self._mapped(listed))
            found = self._key(root, relative) if self.config.lmdb else self._resolve(root, relative)
            tally["listed"] += 1
            if found is None:
                self.missing.append(listed)
            else:
                present[relative] = found
        tally["found"] += len(present)
        if not present:
            self.missing.append(f"{record.group}/{record.name} (no frames)")
            return None
        method, family = manipulation_of_group(record.group, Path(self.config.json).stem)
        video = stable_id(
            *((FACEFORENSICS, method) if record.group in FF_GROUPS else (name, record.group)), record.name
        )
        target, source = target_and_source(people, record)
        columns = unit_columns(
            label=label_of_group(record.group),
            group_id=related[people[0]] if people else video,
            manipulation=method,
            family=family,
            video_id=video,
            target_id=target,
            source_id=source,
            compression=record.level,
        )
        identity = stable_id("deepfakebench", name, record.level or "-", record.group, record.name)
        if self.config.lmdb:
            keys = [present[relative] for relative in sorted(present, key=lambda path: natural_order(path.as_posix()))]
            chosen = [keys[index] for index in spread(len(keys), self.config.frames_per_video)]
            store = store_file(root, _first_folder(record))
            if self.config.masks and record.masks:
                absent = [key for key in map(mask_key, chosen) if read_value(store, key) is None]
                self.missing += [f"{key} in {store} (mask)" for key in absent]
            return Unit(identity, f"{store}{INSIDE}", columns, tuple(chosen))
        read.update(present.values())
        folder = Path(os.path.commonpath([path.parent for path in present.values()]))
        names = sorted((path.relative_to(folder).as_posix() for path in present.values()), key=natural_order)
        chosen = [names[index] for index in spread(len(names), self.config.frames_per_video)]
        masks = _mask_folder(root, folder) if record.masks else None
        return self.with_masks(root, Unit(identity, str(folder), columns, tuple(chosen)), masks)

    def examples(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """Yield the frames from their folder or from LMDB."""
        store, inside, _ = unit.path.partition(INSIDE)
        if not inside:
            yield from super().examples(unit)
            return
        for key in unit.frames:
            name = PurePosixPath(key.replace("\\", "/")).name
            content = read_value(Path(store), key) or b""
            number = frame_key(name)
            row: dict[str, Any] = {
                "id": stable_id(unit.id, PurePosixPath(name).stem),
                "image": {"bytes": content, "path": name},
                "frame": number if isinstance(number, int) else None,
                "file_format": self.check_picture(content, f"{key} in {store}").format,
            }
            if self.config.masks:
                drawn = read_value(Path(store), mask_key(key)) if unit.columns["label"] == "fake" else None
                row["mask"] = {"bytes": drawn, "path": name} if drawn else None
            yield {**unit.columns, **row}

    def _key(self, root: Path, relative: PurePosixPath) -> str | None:
        store = store_file(root, relative.parts[0])
        refuse_outside(root, store)
        return find_key(store, relative)

    def _report_unlisted(self, read: set[Path]) -> None:
        """Report frames and videos that are not listed."""
        folders = {path.parent for path in read}
        beside = [path for folder in sorted(folders) for path in sorted(folder.iterdir()) if is_picture(path)]
        extra = [path for path in beside if path not in read]
        above = {parent for folder in folders for parent in folder.parents}
        for container in sorted({folder.parent for folder in folders}):
            there = [path for path in sorted(container.iterdir()) if path.is_dir()]
            extra += [path for path in there if path not in folders and path not in above]
        if extra:
            self.report(
                "warning", f"{len(extra)} frames or videos ignored because they are not listed: {first_names(extra)}."
            )

    def _mapped(self, listed: str) -> str:
        for prefix, replacement in self.config.prefix_map.items():
            if listed.startswith(prefix):
                return replacement + listed[len(prefix) :]
        return listed

    def _resolve(self, root: Path, relative: PurePosixPath) -> Path | None:
        candidates = [root / relative]
        if relative.parts and relative.parts[0] == root.name:
            candidates.append(root.joinpath(*relative.parts[1:]))
        for path in [*candidates, self._other_spelling(root, relative)]:
            if path is not None and path.is_file():
                refuse_outside(root, path)
                return path
        return None

    def _other_spelling(self, root: Path, relative: PurePosixPath) -> Path | None:
        """Return the path as spelt on disk: DF40's lists and folders differ in case and names."""
        path = root
        for part in relative.parts:
            if path not in self.spellings:
                there = path.iterdir() if path.is_dir() else ()
                self.spellings[path] = {stable_id(entry.name).casefold(): entry.name for entry in there}
            plain = stable_id(part).casefold()
            name = self.spellings[path].get(plain) or self.spellings[path].get(ALIASES.get(plain, plain))
            if name is None:
                return None
            path = path / name
        return path


def _mask_folder(root: Path, frames: Path) -> Path:
    """Masks exist once per method, under c23, and are used for all levels."""
    masks = beside_frames(root, frames)
    shared = (part if part not in LEVELS else "c23" for part in masks.relative_to(root).parts)
    return masks if masks.is_dir() else root.joinpath(*shared)


def _first_folder(record: Record) -> str:
    return relative_path(record.frames[0]).parts[0] if record.frames else ""


def _listed_name(record: Record) -> str:
    """Return `<folder>/<video>` as in the official list, from the first frame's path."""
    parts = relative_path(record.frames[0]).parts if record.frames else ()
    return stable_id(parts[1] if len(parts) > 1 else record.group, record.name)
