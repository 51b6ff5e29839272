"""FFIW10K: videos of several people, few of whom are forged, with masks that show them.

Zhou et al., "Face Forensics in the Wild" (CVPR 2021). Expected:

    source/{train,val}/<name>.mp4           real
    target/{train,val}/<name>.mp4           fake; here "target" means the result
    target_mask/{train,val}/<name>.mp4      optional
"""

from __future__ import annotations

from pathlib import Path

import datasets

from ._builder import Unit, unit_columns
from ._files import first_names, require_folder, stable_id
from ._frames import FrameBuilder, FrameConfig

__all__ = ["FFIW"]

VERSION = datasets.Version("1.0.0")
FOLDERS = {"source": "real", "target": "fake"}  # sorting the folders by name gives the right order only by luck
MASKS = "target_mask"
SPLITS = {"train": "train", "val": "validation", "test": "test"}  # the test is a separate release


class FFIW(FrameBuilder):
    """FFIW10K: labels are for whole videos; the crop of a face in a fake video is only fake under the mask."""

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = FrameConfig
    BUILDER_CONFIGS = [FrameConfig(name="default", version=VERSION, description="All available splits.")]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "FFIW10K"
    TERMS = "FFIW10K terms of use: access by form, non-commercial research only."
    LAYOUT = "{source,target,target_mask}/{train,val[,test]}/[videos/]<name>.mp4 (or frames/<name>/ below each)"
    LAYOUT_VERIFIED = False  # file names are unverified
    REMEDY = "Point data_dir at the folder with source/ and target/ (form in github.com/tfzhou/FFIW)."
    HOMEPAGE = "https://github.com/tfzhou/FFIW"
    SHIPS_MASKS = True

    def likely_counts(self) -> dict[str, dict[str, int]]:
        """8000, 250 and 1750 videos per class; the test split is a separate release."""
        return {split: {"real": n, "fake": n} for split, n in (("train", 8000), ("validation", 250), ("test", 1750))}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per video, real ones of each split first; videos with the same name are one group."""
        for name in FOLDERS:
            require_folder(root / name, f"the {FOLDERS[name]} videos", self.REMEDY)
        known = {name for name in SPLITS if any((root / folder / name).is_dir() for folder in FOLDERS)}
        strange = [str(path) for folder in FOLDERS for path in _folders(root / folder) if path.name not in SPLITS]
        if strange:
            self.report("error", f"Folders ignored because they are not a split: {first_names(strange)}.")
        containers = {(folder, name): root / folder / name for name in SPLITS if name in known for folder in FOLDERS}
        for path in containers.values():
            require_folder(path, "the videos of one class and split", self.REMEDY)
        source = self.choose_source(list(containers.values()))
        splits: dict[str, list[Unit]] = {SPLITS[name]: [] for name in SPLITS if name in known}
        names: dict[tuple[str, str], set[str]] = {}
        for (folder, split), container in containers.items():
            found = self.find_videos(root, container, source)
            names[folder, split] = set(found)
            for name, path in found.items():
                unit = self._unit(root, folder, split, name, path, source)
                if unit is not None:
                    splits[SPLITS[split]].append(unit)
        for split in sorted(known):
            alone = names["source", split] ^ names["target", split]
            if alone:
                self.report("warning", f"{split}: videos that are in only one class: {first_names(sorted(alone))}.")
            place = _mask_place(root, split, source)
            unused = sorted({stable_id(path.stem) for path in _entries(place)} - names["target", split])
            if unused:
                self.report("error", f"{MASKS}/{split} has masks without a fake video: {first_names(unused)}.")
        return splits

    def _unit(self, root: Path, folder: str, split: str, name: str, path: Path, source: str) -> Unit | None:
        label = FOLDERS[folder]
        columns = unit_columns(
            label=label,
            group_id=stable_id("FFIW", split, name),
            manipulation="ffiw",
            family="swap",
            video_id=stable_id("FFIW", folder, split, name),
            target_id=name,
        )
        masks = None
        if label == "fake":
            place = _mask_place(root, split, source)
            masks = place / name if (place / name).is_dir() else place / f"{name}.mp4"
        return self.video_unit(root, stable_id("ffiw", folder, split, name), path, columns, masks)


def _mask_place(root: Path, split: str, source: str) -> Path:
    place = root / MASKS / split
    return place / source if (place / source).is_dir() else place


def _entries(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")] if folder.is_dir() else []


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]
