"""Frames of videos, for datasets that come as clips or as folders of frames."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from ._builder import RawBuilder, RawConfig, Unit
from ._files import is_picture, refuse_outside, require_same_size, stable_id, walk_files

av: Any
try:
    av = importlib.import_module("av")
except ImportError:  # needed only for clips; reported when one is opened
    av = None

__all__ = [
    "CLIP_SUFFIXES",
    "FrameBuilder",
    "FrameConfig",
    "beside_frames",
    "count_frames",
    "frame_key",
    "natural_order",
    "read_frames",
    "spread",
]

SOURCES = ("frames", "images", "videos")  # in the order preferred by "auto"
LIST_SUFFIXES = (".json", ".csv", ".txt")  # some datasets have lists next to the videos
CLIP_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")


@dataclass
class FrameConfig(RawConfig):
    """Selection of the frames of a video that become rows.

    Args:
        frames_per_video: number of frames, evenly spaced from the first to the last; 0 for all.
        source: `"frames"` (folder `frames/<video>/`), `"images"` (folder `images/<video>/`), `"videos"` (the clips) or
            `"auto"`: the first of these that every class has. Real and fake frames must come from the same source.
        masks: add the column `mask` (white where a fake frame was manipulated), if the dataset has masks.
    """

    frames_per_video: int = 32
    source: str = "auto"
    masks: bool = False

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        if self.source not in ("auto", *SOURCES):
            raise ValueError(f"source is {self.source!r}, expected auto, {', '.join(SOURCES)}.")
        if self.frames_per_video < 0:
            raise ValueError(
                f"frames_per_video is {self.frames_per_video}, expected a positive number, or 0 for all frames."
            )


class FrameBuilder(RawBuilder):
    """Base class of builders for videos. A container is the folder with the videos of one class and level."""

    BUILDER_CONFIG_CLASS = FrameConfig
    UNIT_NAME = "videos"
    SHIPS_MASKS = False

    def has_masks(self) -> bool:
        """Whether masks are requested.

        Raises:
            ValueError: if they are, but this dataset does not have any.
        """
        if self.config.masks and not self.SHIPS_MASKS:
            raise ValueError(f"{self.NAME} does not have masks; leave out the option masks.")
        return bool(self.config.masks)

    def choose_source(self, containers: Sequence[Path]) -> str:
        """Return the config's source, or the first one that all existing containers have.

        Raises:
            ValueError: if there is none, because frames extracted by different tools reveal the class.
        """
        if self.config.source != "auto":
            return str(self.config.source)
        present = [container for container in containers if container.is_dir()]
        for source in SOURCES:
            if all(source in sources_of(container) for container in present):
                return source
        table = "; ".join(f"{path}: {', '.join(sources_of(path)) or 'none'}" for path in present)
        raise ValueError(
            f"The classes have no common source of frames ({table}). Real and fake frames must be extracted the same "
            "way: complete one of frames/, images/ or videos/."
        )

    def find_videos(self, root: Path, container: Path, source: str) -> dict[str, Path]:
        """Return the sorted name and path of every video in a container."""
        folder = container / source
        if source == "videos":
            folder = folder if folder.is_dir() else container
            clips: dict[str, Path] = {}
            self.ignored += _other_files(folder, (*CLIP_SUFFIXES, *LIST_SUFFIXES))
            for path in walk_clips(root, folder) if folder.is_dir() else ():
                name = stable_id(path.stem)
                if name in clips:
                    raise ValueError(f"{path} and {clips[name]} are the same video by name; keep one of them.")
                clips[name] = path
            return clips
        if not folder.is_dir():
            return {}
        found: dict[str, Path] = {}
        self.ignored += _other_files(folder, LIST_SUFFIXES)
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                if path.is_symlink():
                    raise ValueError(f"{path} is a link to a folder; put the folder itself in its place.")
                name = stable_id(path.name)
                if name in found:
                    raise ValueError(f"{path} and {found[name]} are the same video by name; keep one of them.")
                found[name] = path
        return found

    def video_unit(
        self, root: Path, name: str, path: Path, columns: dict[str, Any], masks: Path | None = None
    ) -> Unit | None:
        """Return the unit of a video; for a folder without frames return `None` and record it as missing.

        Args:
            root: the data folder.
            name: id of the unit.
            path: a clip, or a folder of frames.
            columns: see `Unit`.
            masks: expected location of the masks of its frames, if any: a clip or a folder.
        """
        wanted = self.config.frames_per_video
        chosen: Sequence[Any] = range(wanted)  # the number of frames is read when the clip is opened
        if path.is_dir():
            there = list(walk_files(root, path))
            files = sorted(
                (file.name for file in there if is_picture(file) and file.parent == path), key=natural_order
            )
            self.ignored += [str(file) for file in there if not is_picture(file) or file.parent != path]
            if not files:
                self.missing.append(f"{path} (no frames)")
                return None
            keys = {frame_key(file) for file in files}
            if len(keys) < len(files):
                raise ValueError(
                    f"{path} contains a frame under two names, such as 1.png and 001.jpg; keep one of them."
                )
            chosen = [files[index] for index in spread(len(files), wanted)]
        return self.with_masks(root, Unit(name, str(path), columns, tuple(chosen)), masks)

    def with_masks(self, root: Path, unit: Unit, masks: Path | None) -> Unit:
        """Add the masks to a unit if requested; record missing ones."""
        if not self.config.masks or masks is None:
            return unit
        if masks.is_dir():
            drawn = {frame_key(file.name) for file in walk_files(root, masks) if is_picture(file)}
            absent = [str(frame) for frame in unit.frames if frame_key(str(frame)) not in drawn]
            if Path(unit.path).is_dir():
                self.missing += [f"{masks / frame} (mask)" for frame in absent]
        elif masks.is_file():
            refuse_outside(root, masks)
        else:
            self.missing.append(f"{masks} (masks)")
            return unit
        return unit._replace(masks=str(masks.resolve()))

    def examples(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """Yield the chosen frames of a video; an unreadable frame or mask is an error and never skipped."""
        path = Path(unit.path)
        if path.is_dir():
            for name, mask in zip(unit.frames, self._masks(unit, unit.frames), strict=True):
                file = f"{unit.path}{os.sep}{name}"
                picture = self.check_picture(file)
                if mask is not None:
                    require_same_size(mask, picture, file)
                number = frame_key(name)
                row: dict[str, Any] = {
                    "id": stable_id(unit.id, PurePosixPath(name).with_suffix("").as_posix()),
                    "image": self.image_cell(file, picture),
                    "frame": number if isinstance(number, int) else None,
                    "file_format": picture.format,
                }
                yield {**unit.columns, **row, **({"mask": mask} if self.config.masks else {})}
            return
        numbers = spread(count_frames(path), len(unit.frames))
        for number, image, mask in zip(numbers, read_frames(path, numbers), self._masks(unit, numbers), strict=True):
            if mask is not None:
                require_same_size(mask, image, f"{path}, frame {number}")
            row = {
                "id": f"{unit.id}/{number}",
                "image": image,
                "frame": number,
                "file_format": path.suffix.lstrip(".").upper(),
            }
            yield {**unit.columns, **row, **({"mask": mask} if self.config.masks else {})}

    def _masks(self, unit: Unit, frames: Sequence[Any]) -> Iterator[Image.Image | None]:
        """Return one mask per frame; `None` for videos without masks and for masks that may be missing."""
        keys = [frame_key(str(frame)) for frame in frames]
        path = Path(unit.masks)
        if not unit.masks:
            yield from (None for _ in keys)
        elif path.is_dir():
            found = {frame_key(file.name): file for file in walk_files(path, path) if is_picture(file)}
            for key in keys:
                if key not in found and not self.config.allow_missing:
                    raise ValueError(f"{path} has no mask for frame {key}. Pass allow_missing=True to leave it empty.")
                yield self.open_picture(found[key], mode="L") if key in found else None
        else:
            # Some mask clips end long before their videos.
            length = count_frames(path)
            present = [key for key in keys if isinstance(key, int) and key < length]
            if len(present) < len(keys) and not self.config.allow_missing:
                late = next(key for key in keys if key not in present)
                raise ValueError(
                    f"{path} has {length} frames and therefore no mask for frame {late}. Pass allow_missing=True to "
                    "leave such masks empty."
                )
            drawn = read_frames(path, present)
            for key in keys:
                yield next(drawn).convert("L") if key in present else None


def beside_frames(root: Path, folder: Path, sister: str = "masks") -> Path:
    """Return the sibling of a folder of frames, replacing only the last `frames` in its path."""
    parts = list(folder.relative_to(root).parts)
    if "frames" in parts:
        parts[len(parts) - 1 - parts[::-1].index("frames")] = sister
    return root.joinpath(*parts)


def frame_key(name: str) -> int | str:
    """Return the key that matches a frame with its mask: the number without leading zeros, otherwise the name."""
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isdecimal() else stable_id(stem)


def spread(count: int, wanted: int) -> list[int]:
    """Return `wanted` evenly spaced positions out of `count`; all of them for 0 or if there are fewer."""
    if wanted == 0 or count <= wanted:
        return list(range(count))
    if wanted == 1:
        return [0]
    return [round(index * (count - 1) / (wanted - 1)) for index in range(wanted)]


def natural_order(name: str) -> list[Any]:
    """Return a sort key that puts `9.png` before `10.png`, and `seed9` before `seed10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def sources_of(container: Path) -> list[str]:
    """Return those of `SOURCES` that a container has."""
    found = [name for name in SOURCES if (container / name).is_dir() and any((container / name).iterdir())]
    if "videos" not in found and container.is_dir():
        if any(path.suffix.lower() in CLIP_SUFFIXES for path in container.iterdir()):
            found.append("videos")
    return found


def _other_files(folder: Path, known: tuple[str, ...]) -> list[str]:
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [path for path in there if path.is_file() and not path.name.startswith(".")]
    return [str(path) for path in files if path.suffix.lower() not in known]


def walk_clips(root: Path, folder: Path) -> Iterator[Path]:
    """Return the clips directly in a folder, sorted by name."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in CLIP_SUFFIXES and not path.name.startswith("."):
            refuse_outside(root, path)
            yield path


def count_frames(path: Path) -> int:
    """Return the number of frames of a clip without decoding them.

    Raises:
        ImportError: if PyAV is not installed.
        ValueError: naming the clip, if it cannot be read or has no frames.
    """
    if av is None:
        raise ImportError("Reading clips needs PyAV: pip install 'deepfake-detectors[data]', or extract frames first.")
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            count = sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} cannot be decoded: {error}. Download this file again.") from error
    if not count:
        raise ValueError(f"{path} has no frames. Download this file again.")
    return count


def read_frames(path: Path, numbers: Sequence[int]) -> Iterator[Image.Image]:
    """Yield the frames of a clip with these ascending numbers.

    Raises:
        ValueError: naming the clip, if it cannot be decoded up to there.
    """
    wanted = iter(numbers)
    awaited = next(wanted, None)
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            for number, frame in enumerate(container.decode(video=0)):
                if awaited is None:
                    return
                if number == awaited:
                    yield frame.to_image()
                    awaited = next(wanted, None)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} cannot be decoded: {error}. Download this file again.") from error
    if awaited is not None:
        raise ValueError(f"{path} ends before frame {awaited}. Download this file again.")
