"""The preview of the Deepfake Detection Challenge dataset (DFDC preview, DFDCP).

Dolhansky et al., "The Deepfake Detection Challenge (DFDC) Preview Dataset" (2019). Expected:

    original_videos/<actor>/.../<name>.mp4
    method_A/<actor>/<actor>_<X>/<name>.mp4, method_B/...        X is the recording location, not the method
    dataset.json                                    path -> label, set, target_id, swapped_id, augmentations
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import datasets

from ._builder import Unit, components, unit_columns
from ._files import first_names, refuse_outside, stable_id, walk_files
from ._frames import CLIP_SUFFIXES, FrameBuilder, FrameConfig
from ._releases import DFDCP_FOLDERS, DFDCP_LIST, read_dfdcp_list

__all__ = ["DFDCP", "DFDCPConfig"]

VERSION = datasets.Version("1.0.0")


@dataclass
class DFDCPConfig(FrameConfig):
    """Definition of the test split.

    Args:
        test: `"set"`: the test videos in `dataset.json`. `"all"`: all 5,250, as in some papers.
    """

    test: str = "set"

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        if self.test not in ("set", "all"):
            raise ValueError(f"test is {self.test!r}, expected set or all.")


class DFDCP(FrameBuilder):
    """DFDC preview: 1,131 real and 4,119 fake videos, without a validation split.

    The top folder is the method; the letter in the name of an inner folder is not.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = DFDCPConfig
    BUILDER_CONFIGS = [
        DFDCPConfig(name="default", version=VERSION, description="Train and test as in dataset.json."),
        DFDCPConfig(name="all_test", version=VERSION, test="all", description="All videos as test."),
    ]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "DFDC preview"
    TERMS = "Terms of the DFDC preview: access with an account, research only, no redistribution."
    LAYOUT = "{original_videos,method_A,method_B}/<actor>/.../<name>.mp4 (or <top>/frames/<name>/), dataset.json"
    LAYOUT_VERIFIED = False  # the keys of dataset.json, as used by third parties
    REMEDY = "Point data_dir at the folder with dataset.json (ai.meta.com/datasets/dfdc)."
    HOMEPAGE = "https://ai.meta.com/datasets/dfdc/"

    def official_counts(self) -> dict[str, dict[str, int]]:
        """1,131 real and 4,119 fake videos, of which 276 and 501 are in the test split."""
        if self.config.test == "all":
            return {"test": {"real": 1131, "fake": 4119}}
        return {"train": {"real": 855, "fake": 3618}, "test": {"real": 276, "fake": 501}}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per video, in the order of the list."""
        listed = read_dfdcp_list(root / DFDCP_LIST, self.REMEDY)
        containers = {top: root / top for top in DFDCP_FOLDERS}
        present = [folder for folder in containers.values() if folder.is_dir()]
        # Clips are in folders of actors, which extracted frames do not have.
        nested = {folder: _clips(root, folder) for folder in present}
        source = self.config.source
        if source == "auto":
            source = "videos" if any(nested.values()) and not _all_extracted(present) else self.choose_source(present)
        by_stem: dict[Path, dict[str, Path]] = {}
        if source != "videos":
            by_stem = {folder: self.find_videos(root, folder, source) for folder in present}
        groups = components(_people(path, row) for path, row in listed.items())
        splits: dict[str, list[Unit]] = {"train": [], "test": []}
        read: dict[Path, str] = {}
        for name, row in listed.items():
            inner = PurePosixPath(name)
            top = root / inner.parts[0]
            path = root / inner if source == "videos" else by_stem.get(top, {}).get(stable_id(inner.stem))
            if path is None or not path.exists():
                self.missing.append(str(root / inner))
                continue
            refuse_outside(root, path)
            if path in read:
                raise ValueError(f"{DFDCP_LIST} has {name} and {read[path]}, but only one {path} for both.")
            read[path] = name
            unit = self._unit(root, name, path, row, groups)
            if unit is not None:
                splits["test" if self.config.test == "all" else row["set"]].append(unit)
        there = nested.values() if source == "videos" else [list(found.values()) for found in by_stem.values()]
        extra = [str(path) for found in there for path in found if path not in read]
        if extra:
            self.report(
                "warning", f"{len(extra)} video(s) ignored because they are not in {DFDCP_LIST}: {first_names(extra)}."
            )
        return splits

    def _unit(self, root: Path, name: str, path: Path, row: dict[str, Any], groups: dict[str, str]) -> Unit | None:
        inner = PurePosixPath(name).with_suffix("")
        columns = unit_columns(
            label=row["label"],
            group_id=stable_id("DFDCP", groups[_people(name, row)[0]]),
            manipulation=inner.parts[0],
            family="swap",
            video_id=stable_id("DFDCP", *inner.parts),
            target_id=_text(row.get("target_id")),
            source_id=_text(row.get("swapped_id")),
        )
        return self.video_unit(root, stable_id("dfdcp", *inner.parts), path, columns)


def _all_extracted(folders: list[Path]) -> bool:
    return any(all((folder / source).is_dir() for folder in folders) for source in ("frames", "images"))


def _clips(root: Path, folder: Path) -> list[Path]:
    return [path for path in walk_files(root, folder) if path.suffix.lower() in CLIP_SUFFIXES]


def _people(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    """Return the actors in a video, which define the groups; for an original without ids, its folder."""
    people = [_text(row.get(key)) for key in ("target_id", "swapped_id")]
    return tuple(person for person in people if person) or (PurePosixPath(name).parts[1],)


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None
