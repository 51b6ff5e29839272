"""The Deepfake Detection Challenge dataset (DFDC), unpacked from its archives.

Dolhansky et al., "The DeepFake Detection Challenge (DFDC) Dataset" (2020). Expected, each part optional:

    train/dfdc_train_part_<0..49>/{<name>.mp4, metadata.json}       file name -> label, split, original
    validation/{<name>.mp4, labels.csv}                             filename,label
    test/{<name>.mp4, labels.csv or metadata.json}                  metadata.json: file name -> is_fake
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import datasets

from ._builder import Unit, unit_columns
from ._files import first_names, inner_path, read_csv, read_table, refuse_outside, stable_id
from ._frames import FrameBuilder, FrameConfig

__all__ = ["DFDC", "DFDCConfig"]

VERSION = datasets.Version("1.0.0")
LABELS = {"REAL": "real", "FAKE": "fake", "0": "real", "1": "fake", "0.0": "real", "1.0": "fake"}
PART = re.compile(r"dfdc_train_part_(\d+)")
PARTS = 50
TRAIN_PARTS, VALIDATION_PARTS = 35, 5  # the usual division of the training parts: 0-34, 35-39, 40-49


@dataclass
class DFDCConfig(FrameConfig):
    """Definition of the splits.

    Args:
        splits: `"official"`: train, validation and test as released. `"parts"`: from the training parts only, 0 to 34,
            35 to 39 and 40 to 49, as is usual without the released validation and test data.
    """

    splits: str = "official"

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        if self.splits not in ("official", "parts"):
            raise ValueError(f"splits is {self.splits!r}, expected official or parts.")


class Entry(NamedTuple):
    """One line of a list."""

    label: str
    original: str | None


class DFDC(FrameBuilder):
    """DFDC: 119,154 training, 4,000 validation and 5,000 test videos, grouped by original.

    The test split is the released one with 5,000 videos, not the 400 `test_videos` of the challenge page. Clips can
    show several faces, and some fakes change only the sound.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = DFDCConfig
    BUILDER_CONFIGS = [
        DFDCConfig(name="official", version=VERSION, description="Train, validation and test as released."),
        DFDCConfig(name="parts", version=VERSION, splits="parts", description="Training parts divided 35/5/10."),
    ]
    DEFAULT_CONFIG_NAME = "official"
    NAME = "DFDC"
    TERMS = "Rules of the challenge: access with an account, research only, no redistribution."
    LAYOUT = "train/dfdc_train_part_<n>/{*.mp4,metadata.json}, validation/ and test/{*.mp4,labels.csv|metadata.json}"
    LAYOUT_VERIFIED = False  # the lists of validation and test, as used by third parties
    REMEDY = "Point data_dir at the folder with train/, validation/ and test/ (ai.meta.com/datasets/dfdc)."
    HOMEPAGE = "https://ai.meta.com/datasets/dfdc/"

    def official_counts(self) -> dict[str, dict[str, int]]:
        """Return the published counts of the released splits."""
        if self.config.splits == "parts":
            return {}
        return {
            "train": {"real": 19_154, "fake": 100_000},
            "validation": {"real": 2_000, "fake": 2_000},
            "test": {"real": 2_500, "fake": 2_500},
        }

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per video, in the order of the lists."""
        folders = dict(self._folders(root))
        if not folders:
            return {}
        lists = {folder: self._read_list(folder) for folder in folders}
        originals = {name for listed in lists.values() for name in listed}
        source = self.choose_source(list(folders))
        splits: dict[str, list[Unit]] = {"train": [], "validation": [], "test": []}
        unknown: list[str] = []
        for folder, split in folders.items():
            refuse_outside(root, folder)
            videos = self.find_videos(root, folder, source)
            for name, entry in lists[folder].items():
                path = videos.pop(stable_id(PurePosixPath(name).stem), None)
                if path is None:
                    self.missing.append(str(folder / name))
                    continue
                if entry.original is not None and entry.original not in originals:
                    unknown.append(f"{entry.original} (of {name})")
                unit = self._unit(root, folder, name, path, entry)
                if unit is not None:
                    splits[split].append(unit)
            if videos:
                self.report(
                    "warning",
                    f"{folder} has videos that are ignored because they are not in any list: "
                    f"{first_names(videos.values())}.",
                )
        if unknown:
            self.report("error", f"Originals that are not in any list: {first_names(unknown)}.")
        return splits

    def _folders(self, root: Path) -> Iterator[tuple[Path, str]]:
        """Return the folders with videos, and their split."""
        numbered = {}
        for path in sorted((root / "train").iterdir()) if (root / "train").is_dir() else []:
            match = PART.fullmatch(path.name)
            if match is None:
                self.report("error", f"{path} is ignored, because it is not a part of the training set.")
            else:
                numbered[int(match.group(1))] = path
        if numbered and len(numbered) != PARTS:
            self.report("warning", f"{len(numbered)} training parts, but {PARTS} were published.")
        for number, path in sorted(numbered.items()):
            split = "train"
            if self.config.splits == "parts" and number >= TRAIN_PARTS:
                split = "validation" if number < TRAIN_PARTS + VALIDATION_PARTS else "test"
            yield path, split
        if self.config.splits == "official":
            yield from ((root / name, name) for name in ("validation", "test") if (root / name).is_dir())

    def _read_list(self, folder: Path) -> dict[str, Entry]:
        """Return file name -> label and original, from the lists in the folder, which must agree."""
        tables = {
            path: read(path)
            for path, read in ((folder / "labels.csv", _read_csv), (folder / "metadata.json", self._read_metadata))
            if path.is_file()
        }
        if not tables:
            raise FileNotFoundError(f"{folder} has neither metadata.json nor labels.csv. {self.REMEDY}")
        merged: dict[str, Entry] = {}
        for path, table in tables.items():
            for name, entry in table.items():
                if merged.get(name, entry).label != entry.label:
                    raise ValueError(
                        f"{path} labels {name} as {entry.label}, but the other list in {folder} does not."
                    )
                merged[name] = entry
        return merged

    def _read_metadata(self, path: Path) -> dict[str, Entry]:
        table = {}
        for name, row in read_table(path, self.REMEDY).items():
            where = f"{path}, {name}"
            label = _label(row.get("label", row.get("is_fake")), where)
            original = row.get("original") or None
            if original is not None and not isinstance(original, str):
                raise ValueError(f"{where} has original {original!r}, expected a file name. Download this list again.")
            if label == "real" and original is not None:
                raise ValueError(f"{where} is labelled REAL, but was made from {original}. Download this list again.")
            if label == "fake" and original is None and "label" in row:
                self.report("error", f"{where} is labelled FAKE, but has no original.")
            table[inner_path(name, str(path)).as_posix()] = Entry(label, original)
        return table

    def _unit(self, root: Path, folder: Path, name: str, path: Path, entry: Entry) -> Unit | None:
        stem = PurePosixPath(name).stem
        original = PurePosixPath(entry.original or name).stem
        place = folder.relative_to(root).as_posix()
        columns = unit_columns(
            label=entry.label,
            group_id=stable_id("DFDC", original),
            manipulation="dfdc",
            family="swap",
            video_id=stable_id("DFDC", place, stem),
            target_id=original,
        )
        return self.video_unit(root, stable_id("dfdc", place, stem), path, columns)


def _label(value: object, where: str) -> str:
    label = LABELS.get(str(value).strip())
    if label is None:
        raise ValueError(f"{where} has label {value!r}, expected REAL or FAKE (0 or 1 in labels.csv).")
    return label


def _read_csv(path: Path) -> dict[str, Entry]:
    columns, rows = read_csv(path)
    if not rows or not {"filename", "label"} <= set(columns):
        raise ValueError(
            f"{path} has the columns {', '.join(map(repr, columns)) or 'none'} and {len(rows)} rows; it should have "
            "filename and label, separated by commas."
        )
    table: dict[str, Entry] = {}
    for _, row in rows:
        name = inner_path(row["filename"], str(path)).as_posix()
        if name in table:
            raise ValueError(f"{path} lists {name} twice.")
        table[name] = Entry(_label(row["label"], f"{path}, {name}"), None)
    return table
