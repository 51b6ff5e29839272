"""FaceForensics++ in the format of M2F2-Det: one HDF5 file per manipulation, one uint8 RGB clip per video.

Roessler et al., "FaceForensics++" (ICCV 2019), in the form used by Guo et al. (M2F2-Det, CVPR 2025). Expected:

    FF++_{original|Deepfakes|FaceSwap|NeuralTextures|Face2Face}_{c23|c40}.h5     key "071" or "071_054"
    FF++_..._test_only.h5                                                        the same with only test videos
    {train,val,test}.json or splits/{train,val,test}.json                        official pairs of video ids
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from ._builder import RawBuilder, RawConfig, Unit, unit_columns
from ._files import first_names, refuse_outside, stable_id
from ._releases import (
    FF_LISTS,
    Pairs,
    crossing_pairs,
    describe_crossing,
    group_videos,
    list_path,
    read_splits,
    video_names,
)

try:
    import h5py
except ImportError:  # needed only for this dataset; reported when it is used
    h5py = None

__all__ = ["FFPPHdf5", "FFPPHdf5Config"]

FILES = {  # in the order of the official reader, which starts ids with the position
    "original": None,
    "Deepfakes": "swap",
    "FaceSwap": "swap",
    "NeuralTextures": "reenact",
    "Face2Face": "reenact",
}
REAL_FILE = "original"
TEST_FRAMES = 100  # the official reader takes frames 0..99 of every test video
BLOCK_BYTES = 32 * 2**20  # size limit of a single read


@dataclass
class FFPPHdf5Config(RawConfig):
    """One compression level.

    Args:
        compression: `"c23"` or `"c40"`.
        train_frames: frames per training and validation video, evenly spaced over the frames that the official reader
            can draw, which are all except the last.
        split_file: name of a list of pairs to use as the test split, instead of the official lists.
    """

    compression: str = "c40"
    train_frames: int = 32
    split_file: str | None = None

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        if self.compression not in ("c23", "c40"):
            raise ValueError(f"compression is {self.compression!r}, expected c23 or c40.")
        if self.train_frames < 1:
            raise ValueError(f"train_frames is {self.train_frames}, expected at least 1.")


class FFPPHdf5(RawBuilder):
    """FaceForensics++ clips in the HDF5 files of M2F2-Det, with the official splits.

    Test rows follow the official reader: its order of files, videos and frames, its ids `<file>_<video>_<frame>`, and
    frames 0..99. Training and validation need the full files; a copy with `_test_only` files has only the test split.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = FFPPHdf5Config
    BUILDER_CONFIGS = [
        FFPPHdf5Config(name="c40", version=VERSION, description="Strongly compressed."),
        FFPPHdf5Config(name="c23", version=VERSION, compression="c23", description="Lightly compressed."),
    ]
    DEFAULT_CONFIG_NAME = "c40"
    NAME = "FaceForensics++ (HDF5)"
    TERMS = "FaceForensics terms of use: non-commercial research and education only, no redistribution."
    LAYOUT = "FF++_<manipulation>_<c23|c40>[_test_only].h5 next to train.json, val.json, test.json (or in splits/)"
    REMEDY = (
        "Point data_dir at the folder with the FF++_*.h5 files of github.com/CHELSEA234/M2F2_Det and the split lists "
        "of github.com/ondyari/FaceForensics."
    )
    HOMEPAGE = "https://github.com/CHELSEA234/M2F2_Det"
    UNIT_NAME = "videos"

    def official_counts(self) -> dict[str, dict[str, int]]:
        """720/140/140 videos per file; nothing for a custom list."""
        if self.config.split_file is not None:
            return {}
        fakes = len(FILES) - 1
        videos = {"train": 720, "validation": 140, "test": 140}
        return {split: {"real": count, "fake": count * fakes} for split, count in videos.items()}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per video of every file, in the order of the official reader."""
        if h5py is None:
            raise ImportError("Reading HDF5 files needs h5py: pip install 'deepfake-detectors[data]'")
        lists = {"test": self.config.split_file} if self.config.split_file else dict(FF_LISTS)
        for split, name in list(lists.items()):
            if split != "test" and not list_path(root, name).is_file():
                self.report("warning", f"{split} is left out: {list_path(root, lists.pop(split))} is missing.")
        pairs = read_splits(root, lists, self.REMEDY)
        groups = group_videos(pairs)
        crossing = crossing_pairs(pairs)
        if crossing:
            self.report("warning", describe_crossing(crossing))
        splits = {split: self._split(root, split, found, groups) for split, found in pairs.items()}
        if len(pairs) == len(FF_LISTS):
            self._report_unlisted(root, [pair for found in pairs.values() for pair in found])
        return splits

    def _report_unlisted(self, root: Path, pairs: Pairs) -> None:
        """Report videos in the full files that are not in any list."""
        for name in FILES:
            path = self._find_file(root, name, "train")
            if path is not None:
                with _open(path) as file:
                    extra = sorted(set(file) - {"_".join(key) for key in video_names(pairs, name == REAL_FILE)})
                if extra:
                    text = f"{path.name} has {len(extra)} video(s) that are not in any list: {first_names(extra)}."
                    self.report("warning", text)

    def _split(self, root: Path, split: str, pairs: Pairs, groups: dict[str, str]) -> list[Unit]:
        paths = {name: self._find_file(root, name, split) for name in FILES}
        absent = [self._file_name(name, split) for name, path in paths.items() if path is None]
        if absent and split != "test":
            self.report("warning", f"{split} is left out: {first_names(absent)} missing in {root}.")
            return []
        if absent:
            raise FileNotFoundError(f"{first_names(absent)} missing in {root}. {self.REMEDY}")
        units = []
        for number, (name, path) in enumerate(paths.items()):
            if path is None:
                continue  # reported above
            keys = video_names(pairs, name == REAL_FILE)
            with _open(path) as file:
                listed = {"_".join(key) for key in keys}
                missing = [key for key in sorted(listed) if key not in file]
                if missing:
                    raise ValueError(f"{path} lacks the {split} video(s) {first_names(missing)}. Download it again.")
                extra = sorted(set(file) - listed) if path.stem.endswith("_test_only") else []
                if extra:
                    self.report(
                        "warning",
                        f"{path.name} has {len(extra)} video(s) that are not in any list: {first_names(extra)}.",
                    )
                for key in keys:
                    units.append(self._unit(path, file["_".join(key)], number, name, key, split, groups))
        return units

    def _unit(
        self, path: Path, clip: Any, number: int, name: str, key: tuple[str, ...], split: str, groups: dict[str, str]
    ) -> Unit:
        video = "_".join(key)
        if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != "uint8":
            raise ValueError(
                f"{path}: video {video} is {clip.dtype} {clip.shape}, expected uint8 (frames, height, width, 3)."
            )
        length = clip.shape[0]
        if split == "test":
            if length < TEST_FRAMES:
                raise ValueError(
                    f"{path}: test video {video} has {length} frames, but the protocol reads {TEST_FRAMES}."
                )
            frames = list(range(TEST_FRAMES))
        else:
            drawable = max(length - 1, 1)
            count = min(self.config.train_frames, drawable)
            frames = [index * drawable // count for index in range(count)]
        method = "real" if name == REAL_FILE else name
        columns = unit_columns(
            label="real" if name == REAL_FILE else "fake",
            group_id=f"FaceForensics++/{groups[key[0]]}",
            manipulation=name,
            family=FILES[name],
            video_id=f"FaceForensics++/{method}/{video}",
            target_id=key[0],
            source_id=key[-1],
            compression=self.config.compression,
        )
        columns["file_format"] = "HDF5"
        return Unit(stable_id(f"{number}_{video}"), str(path), columns, tuple(frames))

    def examples(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """Yield the frames of a video, read in contiguous blocks."""
        video = unit.id.split("_", 1)[1]
        # Opened here, because an HDF5 handle cannot be sent to another process.
        with _open(Path(unit.path)) as file:
            clip = file[video]
            size = max(1, BLOCK_BYTES // max(1, clip[0].nbytes))
            start = stop = 0
            for frame in unit.frames:
                if frame >= stop:
                    consecutive = unit.frames[-1] - unit.frames[0] == len(unit.frames) - 1
                    start, stop = frame, min(frame + size, unit.frames[-1] + 1) if consecutive else frame + 1
                    block = clip[start:stop]
                yield {**unit.columns, "id": f"{unit.id}_{frame}", "image": block[frame - start], "frame": frame}

    def _file_name(self, name: str, split: str) -> str:
        return f"FF++_{name}_{self.config.compression}{'[_test_only]' if split == 'test' else ''}.h5"

    def _find_file(self, root: Path, name: str, split: str) -> Path | None:
        stem = f"FF++_{name}_{self.config.compression}"
        candidates = ([f"{stem}_test_only.h5"] if split == "test" else []) + [f"{stem}.h5"]
        for path in (root / candidate for candidate in candidates):
            if path.is_file():
                refuse_outside(root, path)
                return path
        return None


def _open(path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}. Download this file again.") from error
