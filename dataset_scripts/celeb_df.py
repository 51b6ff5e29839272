"""Celeb-DF v1 and v2 in their official layout, as clips or extracted frames.

Li et al., "Celeb-DF: A Large-scale Challenging Dataset for DeepFake Forensics" (CVPR 2020). Expected:

    {Celeb-real,YouTube-real,Celeb-synthesis}/[videos/]<name>.mp4     or below them images/<name>/, frames/<name>/
    List_of_testing_videos.txt                                        lines "<1 real | 0 fake> <folder>/<name>.mp4"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import datasets

from ._builder import Unit, components, unit_columns
from ._files import require_folder, stable_id
from ._frames import FrameBuilder, FrameConfig
from ._releases import CELEB_FOLDERS, CELEB_LIST, read_celeb_list

__all__ = ["CelebDF", "CelebDFConfig"]

VERSION = datasets.Version("1.0.0")

TEST_LINES = {"v1": 100, "v2": 518}


@dataclass
class CelebDFConfig(FrameConfig):
    """One of the releases.

    Args:
        release: `"v1"` or `"v2"`.
    """

    release: str = "v2"

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        if self.release not in TEST_LINES:
            raise ValueError(f"release is {self.release!r}, expected v1 or v2.")


class CelebDF(FrameBuilder):
    """Celeb-DF: the official list is the test split, everything else is training; there is no validation split.

    In the official list 1 is real and 0 is fake; here 0 is real, as in all builders. The people in test videos also
    appear in training, so `group_id` joins nearly everything: there is no split by identity.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = CelebDFConfig
    BUILDER_CONFIGS = [
        CelebDFConfig(name=release, version=VERSION, release=release, description=f"Celeb-DF {release}.")
        for release in ("v2", "v1")
    ]
    DEFAULT_CONFIG_NAME = "v2"
    NAME = "Celeb-DF"
    TERMS = "Celeb-DF terms of use: access by form, non-commercial research only, no redistribution."
    LAYOUT = "{Celeb-real,YouTube-real,Celeb-synthesis}/[videos/]*.mp4 (or frames/<name>/), List_of_testing_videos.txt"
    REMEDY = (
        "Point data_dir at the folder with Celeb-real/ and the list (github.com/yuezunli/celeb-deepfakeforensics)."
    )
    HOMEPAGE = "https://github.com/yuezunli/celeb-deepfakeforensics"

    def official_counts(self) -> dict[str, dict[str, int]]:
        """v2: 890 real and 5639 fake videos, of which 178 and 340 are in the test split."""
        if self.config.release == "v1":
            return {}
        return {"train": {"real": 890 - 178, "fake": 5639 - 340}, "test": {"real": 178, "fake": 340}}

    def likely_counts(self) -> dict[str, dict[str, int]]:
        """v1: 408 real and 795 fake videos; the test counts are unverified."""
        if self.config.release == "v2":
            return {}
        return {"train": {"real": 408 - 38, "fake": 795 - 62}, "test": {"real": 38, "fake": 62}}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per video, folder by folder, sorted by name."""
        folders = {name: _find_folder(root, name) for name in CELEB_FOLDERS}
        for name, folder in folders.items():
            require_folder(folder, f"the {CELEB_FOLDERS[name]} videos of {name}", self.REMEDY)
        listed = read_celeb_list(root / CELEB_LIST, self.REMEDY)
        if len(listed) != TEST_LINES[self.config.release]:
            self.report(
                "error",
                f"{CELEB_LIST} has {len(listed)} videos, but {TEST_LINES[self.config.release]} were published for "
                f"{self.config.release}.",
            )
        source = self.choose_source(list(folders.values()))
        splits: dict[str, list[Unit]] = {"train": [], "test": []}
        videos = {name: self.find_videos(root, folder, source) for name, folder in folders.items()}
        groups = components(_people(name, video) for name, found in videos.items() for video in found)
        unread = dict(listed)
        for name, found in videos.items():
            if not found:
                self.missing.append(f"{folders[name]} (no {source})")
            for video, path in found.items():
                key = f"{name}/{video}"
                split = "test" if unread.pop(key, None) else "train"
                unit = self._unit(root, name, video, path, groups)
                if unit is not None:
                    splits[split].append(unit)
        self.missing += [str(folders[key.split("/")[0]] / key.split("/", 1)[1]) for key in unread]
        return splits

    def _unit(self, root: Path, folder: str, video: str, path: Path, groups: dict[str, str]) -> Unit | None:
        fake = CELEB_FOLDERS[folder] == "fake"
        people = video.split("_")
        release = f"Celeb-DF-{self.config.release}"
        columns = unit_columns(
            label=CELEB_FOLDERS[folder],
            group_id=stable_id(release, groups[_people(folder, video)[0]]),
            manipulation="celeb_synthesis",
            family="swap",
            video_id=stable_id(release, folder, video),
            target_id=f"{people[0]}_{people[2]}" if fake else video,  # id0_id1_0000 was made from id0_0000
            source_id=people[1] if fake else None,
        )
        return self.video_unit(root, stable_id(f"celeb_df_{self.config.release}", folder, video), path, columns)


def _find_folder(root: Path, name: str) -> Path:
    """Return the folder, ignoring case: some copies use Youtube-real."""
    found = [path for path in root.iterdir() if path.is_dir() and path.name.casefold() == name.casefold()]
    return found[0] if found else root / name


def _people(folder: str, video: str) -> tuple[str, ...]:
    """Return the people in a video, or the video itself if they are unknown."""
    parts = video.split("_")
    expected = {"Celeb-real": 2, "YouTube-real": 1, "Celeb-synthesis": 3}[folder]
    if len(parts) != expected:
        raise ValueError(
            f"{folder}/{video} does not have a name for {folder}: id0_0000, 00000 or id0_id1_0000. Move it elsewhere."
        )
    return (f"YouTube-real/{video}",) if folder == "YouTube-real" else tuple(parts[:-1])
