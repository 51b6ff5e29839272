"""DeepFakeDetection (DFD, "Deep Fake Detection Dataset" of Google and Jigsaw) in the FaceForensics layout.

Dufour and Gully, "Contributing Data to Deepfake Detection Research" (2019). Expected:

    original_sequences/actors/<raw|c23|c40>/{videos/<actor>__<scene>.mp4 | images/... | frames/...}
    manipulated_sequences/DeepFakeDetection/<raw|c23|c40>/{videos | images | frames}/<target>_<source>__<scene>__<id>
    manipulated_sequences/DeepFakeDetection/masks/videos/<name>.mp4           optional
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import datasets

from ._builder import Unit, components, unit_columns
from ._files import first_names, require_folder, stable_id
from ._frames import FrameBuilder, FrameConfig
from ._releases import FF_LEVELS, level_folder, mask_place

__all__ = ["DeepFakeDetection", "DeepFakeDetectionConfig"]

VERSION = datasets.Version("1.0.0")
FOLDERS = {"real": "original_sequences/actors", "fake": "manipulated_sequences/DeepFakeDetection"}
NAMES = {  # 01__exit_phone_room, 01_02__exit_phone_room__ABCDEFGH
    "real": re.compile(r"(?P<target>[^_]+)__(?P<scene>.+)"),
    "fake": re.compile(r"(?P<target>[^_]+)_(?P<source>[^_]+)__(?P<scene>.+)__[^_]{8}"),
}


@dataclass
class DeepFakeDetectionConfig(FrameConfig):
    """One compression level.

    Args:
        compression: `"raw"`, `"c23"` or `"c40"`.
    """

    compression: str = "c23"

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        if self.compression not in FF_LEVELS:
            raise ValueError(f"compression is {self.compression!r}, expected one of {', '.join(FF_LEVELS)}.")


class DeepFakeDetection(FrameBuilder):
    """DeepFakeDetection: 363 real and 3068 fake videos of paid actors, published without splits, so all are `test`.

    Scenes show several people, only one of whom is forged: a face crop from a fake video is fake only if it overlaps
    the mask. Some mask clips are much shorter than their video. Shared actors join nearly everything into a few
    groups.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = DeepFakeDetectionConfig
    BUILDER_CONFIGS = [
        DeepFakeDetectionConfig(name=level, version=VERSION, compression=level, description=f"Compression {level}.")
        for level in ("c23", "c40", "raw")
    ]
    DEFAULT_CONFIG_NAME = "c23"
    NAME = "DeepFakeDetection"
    TERMS = "FaceForensics terms of use: non-commercial research and education only, no redistribution."
    LAYOUT = "{original_sequences/actors,manipulated_sequences/DeepFakeDetection}/<level>/{videos,images,frames}/..."
    REMEDY = "Point data_dir at the folder with original_sequences/ (script from github.com/ondyari/FaceForensics)."
    HOMEPAGE = "https://github.com/ondyari/FaceForensics"
    SHIPS_MASKS = True

    def official_counts(self) -> dict[str, dict[str, int]]:
        """363 real and 3068 fake videos."""
        return {"test": {"real": 363, "fake": 3068}}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per video, sorted by name, real ones first."""
        methods = {label: root / folder for label, folder in FOLDERS.items()}
        containers = {label: level_folder(folder, self.config.compression) for label, folder in methods.items()}
        for label, folder in containers.items():
            require_folder(folder, f"the {label} videos", self.REMEDY)
        source = self.choose_source(list(containers.values()))
        videos = {label: self.find_videos(root, folder, source) for label, folder in containers.items()}
        for label, found in videos.items():
            if not found:
                self.missing.append(f"{containers[label] / source} (no videos)")
        parsed = {
            label: {name: _parse(containers[label], label, name) for name in found} for label, found in videos.items()
        }
        groups = components(
            tuple(person for person in (parts["target"], parts.get("source")) if person)
            for found in parsed.values()
            for parts in found.values()
        )
        units = []
        for label, found in videos.items():
            for name, path in found.items():
                parts = parsed[label][name]
                columns = unit_columns(
                    label=label,
                    group_id=stable_id(self.NAME, groups[parts["target"]]),
                    manipulation="deepfakedetection",
                    family="swap",
                    video_id=stable_id(self.NAME, label, name),
                    target_id=f"{parts['target']}__{parts['scene']}",
                    source_id=parts.get("source"),
                    compression=self.config.compression,
                    category=parts["scene"],
                )
                masks = mask_place(methods[label], containers[label], source, name) if label == "fake" else None
                identity = stable_id("dfd", self.config.compression, label, name)
                unit = self.video_unit(root, identity, path, columns, masks)
                if unit is not None:
                    units.append(unit)
        alone = {unit.columns["target_id"] for unit in units if unit.columns["label"] == "fake"} - set(videos["real"])
        if alone:
            self.report("warning", f"The originals of some fakes are missing: {first_names(sorted(alone))}.")
        return {"test": units}


def _parse(folder: Path, label: str, name: str) -> dict[str, str]:
    match = NAMES[label].fullmatch(name)
    if match is None or (label == "real" and NAMES["fake"].fullmatch(name)):
        raise ValueError(
            f"{folder} contains {name}, which does not have the name of a {label} video: <actor>__<scene> is real, "
            "<target>_<source>__<scene>__<8 characters> is fake. Move it elsewhere."
        )
    return match.groupdict()
