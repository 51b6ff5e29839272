"""FaceForensics++ in the layout of its download script, as clips or extracted frames.

Roessler et al., "FaceForensics++: Learning to Detect Manipulated Facial Images" (ICCV 2019). Expected:

    original_sequences/youtube/<raw|c23|c40>/{videos/<id>.mp4 | images/<id>/0000.png | frames/<id>/000.png}
    manipulated_sequences/<method>/<raw|c23|c40>/{videos | images | frames}/<target>_<source>...
    manipulated_sequences/<method>/masks/videos/<target>_<source>.mp4     optional
    {train,val,test}.json or splits/{train,val,test}.json        official pairs of video ids
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import datasets

from ._builder import Unit, unit_columns
from ._files import first_names, stable_id
from ._frames import FrameBuilder, FrameConfig
from ._releases import (
    FF_LEVELS,
    FF_LISTS,
    crossing_pairs,
    describe_crossing,
    group_videos,
    level_folder,
    mask_place,
    read_splits,
    video_names,
)

__all__ = ["FaceForensics", "FaceForensicsConfig"]

VERSION = datasets.Version("1.0.0")

METHODS = {
    "Deepfakes": "swap",
    "Face2Face": "reenact",
    "FaceSwap": "swap",
    "NeuralTextures": "reenact",
    "FaceShifter": "swap",
}
OFFICIAL_METHODS = tuple(method for method in METHODS if method != "FaceShifter")
WITHOUT_MASKS = frozenset({"FaceShifter"})
VIDEOS = {"train": 720, "validation": 140, "test": 140}
NAME = "FaceForensics++"


@dataclass
class FaceForensicsConfig(FrameConfig):
    """One compression level.

    Args:
        compression: `"raw"`, `"c23"` or `"c40"`.
        methods: folders in `manipulated_sequences` to read; by default the official four, without FaceShifter.
    """

    compression: str = "c23"
    methods: tuple[str, ...] = OFFICIAL_METHODS

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        if self.compression not in FF_LEVELS:
            raise ValueError(f"compression is {self.compression!r}, expected one of {', '.join(FF_LEVELS)}.")
        unknown = [method for method in self.methods if method not in METHODS]
        if unknown or not self.methods:
            raise ValueError(f"methods has {unknown}, expected some of {', '.join(METHODS)}.")


class FaceForensics(FrameBuilder):
    """FaceForensics++ with its official splits: 720, 140 and 140 videos per class.

    Fakes are named `<target>_<source>`: head and scene come from the target. Seven pairs of originals are parts of one
    YouTube video in different splits; their groups are joined and reported. The meaning of masks varies: for Deepfakes
    they are boxes, for NeuralTextures the tracked face instead of the changed pixels; FaceShifter has none.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = FaceForensicsConfig
    BUILDER_CONFIGS = [
        FaceForensicsConfig(name=level, version=VERSION, compression=level, description=f"Compression {level}.")
        for level in ("c23", "c40", "raw")
    ]
    DEFAULT_CONFIG_NAME = "c23"
    NAME = NAME
    SHIPS_MASKS = True
    TERMS = "FaceForensics terms of use: non-commercial research and education only, no redistribution."
    LAYOUT = "{original_sequences/youtube,manipulated_sequences/<method>}/<level>/{videos,images,frames}/..."
    REMEDY = "Point data_dir at the folder with original_sequences/ (script from github.com/ondyari/FaceForensics)."
    HOMEPAGE = "https://github.com/ondyari/FaceForensics"

    def official_counts(self) -> dict[str, dict[str, int]]:
        """720/140/140 videos per class."""
        return {split: {"real": n, "fake": n * len(self.config.methods)} for split, n in VIDEOS.items()}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per video: originals in the order of the list, then method by method."""
        pairs = read_splits(root, FF_LISTS, self.REMEDY)
        groups = group_videos(pairs)
        crossing = crossing_pairs(pairs)
        if crossing:
            self.report("warning", describe_crossing(crossing))
        folders = {"real": root / "original_sequences" / "youtube"}
        folders |= {method: root / "manipulated_sequences" / method for method in self.config.methods}
        containers = {method: level_folder(folder, self.config.compression) for method, folder in folders.items()}
        source = self.choose_source(list(containers.values()))
        videos = {method: self.find_videos(root, path, source) for method, path in containers.items()}

        splits: dict[str, list[Unit]] = {split: [] for split in pairs}
        for split, listed in pairs.items():
            for method, found in videos.items():
                for names in video_names(listed, method == "real"):
                    path = found.pop("_".join(names), None)
                    if path is None:
                        self.missing.append(str(containers[method] / source / "_".join(names)))
                        continue
                    masks = None
                    if method != "real" and method not in WITHOUT_MASKS:
                        masks = mask_place(folders[method], containers[method], source, "_".join(names))
                    unit = self._unit(root, method, names, path, groups, masks)
                    if unit is not None:
                        splits[split].append(unit)
        extra = [str(path) for found in videos.values() for path in found.values()]
        if extra:
            self.report(
                "warning", f"{len(extra)} video(s) ignored because they are not in any split: {first_names(extra)}."
            )
        return splits

    def _unit(
        self, root: Path, method: str, names: tuple[str, ...], path: Path, groups: dict[str, str], masks: Path | None
    ) -> Unit | None:
        video = "_".join(names)
        columns = unit_columns(
            label="real" if method == "real" else "fake",
            group_id=f"{NAME}/{groups[names[0]]}",
            manipulation=method,
            family=METHODS.get(method),
            video_id=f"{NAME}/{method}/{video}",
            target_id=names[0],
            source_id=names[-1],
            compression=self.config.compression,
        )
        return self.video_unit(root, stable_id("ffpp", self.config.compression, method, video), path, columns, masks)
