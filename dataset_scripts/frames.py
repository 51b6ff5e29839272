"""Frames of videos: the sets that ship clips, or folders of frames made from them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from .common import RawBuilder, RawConfig, Unit, is_picture, read_image_format, refuse_outside, stable_id, walk_files

av: Any
try:
    av = importlib.import_module("av")
except ImportError:  # only clips need it; said when one is opened
    av = None

__all__ = ["FrameBuilder", "FrameConfig", "natural_order", "read_clip", "spread"]

SOURCES = ("frames", "images", "videos")  # in the order in which "auto" prefers them
CLIP_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")


@dataclass
class FrameConfig(RawConfig):
    """Which frames of a video become rows.

    Args:
        frames_per_video: that many, spread evenly from the first to the last; 0 for all.
        source: `"frames"` (folder `frames/<video>/`), `"images"` (folder `images/<video>/`), `"videos"` (the clips) or
            `"auto"`: the first of these that every class has. Real and fake frames must come by the same way.
    """

    frames_per_video: int = 32
    source: str = "auto"

    def check(self) -> None:
        """Raise a `ValueError` for a value outside its allowed set."""
        super().check()
        if self.source not in ("auto", *SOURCES):
            raise ValueError(f"source is {self.source!r}, expected auto, {', '.join(SOURCES)}.")
        if self.frames_per_video < 0:
            raise ValueError(f"frames_per_video is {self.frames_per_video}, expected a number, or 0 for all frames.")


class FrameBuilder(RawBuilder):
    """Base of the builders over videos. A container is the folder that holds the videos of one class and level."""

    BUILDER_CONFIG_CLASS = FrameConfig
    UNIT_NAME = "videos"

    def choose_source(self, containers: Sequence[Path]) -> str:
        """The config's source, or the first that all existing containers have.

        Raises:
            ValueError: if there is none: frames cut by different tools give the classes away.
        """
        if self.config.source != "auto":
            return str(self.config.source)
        present = [container for container in containers if container.is_dir()]
        for source in SOURCES:
            if all(source in sources_of(container) for container in present):
                return source
        table = "; ".join(f"{path}: {', '.join(sources_of(path)) or 'none'}" for path in present)
        raise ValueError(
            f"The classes have no common source of frames ({table}). Real and fake frames must be made the same way: "
            "complete one of frames/, images/ or videos/."
        )

    def find_videos(self, root: Path, container: Path, source: str) -> dict[str, Path]:
        """Name and path of every video of a container, sorted."""
        folder = container / source
        if source == "videos":
            folder = folder if folder.is_dir() else container
            clips: dict[str, Path] = {}
            for path in walk_clips(root, folder) if folder.is_dir() else ():
                name = stable_id(path.stem)
                if name in clips:
                    raise ValueError(f"{path} and {clips[name]} are the same video by name; keep one of them.")
                clips[name] = path
            return clips
        if not folder.is_dir():
            return {}
        found = {}
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                if path.is_symlink():
                    raise ValueError(f"{path} is a link to a folder; put the folder itself in its place.")
                found[stable_id(path.name)] = path
        return found

    def video_unit(self, root: Path, name: str, path: Path, columns: dict[str, Any]) -> Unit | None:
        """The unit of a video; `None`, noted as missing, for a folder without frames."""
        wanted = self.config.frames_per_video
        if path.is_dir():
            files = sorted((file.name for file in walk_files(root, path) if is_picture(file)), key=natural_order)
            if not files:
                self.missing.append(f"{path} (no frames)")
                return None
            chosen: Sequence[Any] = [files[index] for index in spread(len(files), wanted)]
        else:
            chosen = range(wanted)  # how many frames a clip has is seen when it is opened
        return Unit(name, str(path), columns, tuple(chosen))

    def examples(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """The chosen frames of a video; a frame that cannot be read is an error, never skipped."""
        path = Path(unit.path)
        if path.is_dir():
            for name in unit.frames:
                file = path / name
                number = int(file.stem) if file.stem.isdigit() else None
                yield {
                    "id": stable_id(unit.id, PurePosixPath(name).with_suffix("").as_posix()),
                    "image": str(file),
                    "frame": number,
                    "file_format": read_image_format(file),
                    **unit.columns,
                }
        else:
            for number, image in read_clip(path, len(unit.frames)):
                columns = {"frame": number, "file_format": path.suffix.lstrip(".").upper(), **unit.columns}
                yield {"id": f"{unit.id}/{number}", "image": image, **columns}


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` positions from the first to the last of `count`, evenly; all of them for 0 or too few."""
    if wanted == 0 or count <= wanted:
        return list(range(count))
    if wanted == 1:
        return [0]
    return [round(index * (count - 1) / (wanted - 1)) for index in range(wanted)]


def natural_order(name: str) -> list[Any]:
    """Sort key by which `9.png` comes before `10.png`, and `seed9` before `seed10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def sources_of(container: Path) -> list[str]:
    """Which of `SOURCES` a container has something of."""
    found = [name for name in SOURCES if (container / name).is_dir() and any((container / name).iterdir())]
    if "videos" not in found and container.is_dir():
        if any(path.suffix.lower() in CLIP_SUFFIXES for path in container.iterdir()):
            found.append("videos")
    return found


def walk_clips(root: Path, folder: Path) -> Iterator[Path]:
    """The clips directly in a folder, sorted by name."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in CLIP_SUFFIXES and not path.name.startswith("."):
            refuse_outside(root, path)
            yield path


def read_clip(path: Path, wanted: int) -> Iterator[tuple[int, Image.Image]]:
    """Frame numbers and pictures of a clip, as `spread` chooses them.

    Raises:
        ImportError: if PyAV is not installed.
        ValueError: naming the clip, if it cannot be decoded to its end.
    """
    if av is None:
        raise ImportError("Reading clips needs PyAV: pip install 'deepfake-detectors[data]', or extract frames first.")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            count = sum(1 for packet in container.demux(stream) if packet.size)
        chosen = set(spread(count, wanted))
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in chosen:
                    chosen.remove(number)
                    yield number, frame.to_image()
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} cannot be decoded: {error}. Fetch this file again.") from error
    if chosen or not count:
        raise ValueError(f"{path} ends before frame {min(chosen, default=0)} of {count}. Fetch this file again.")
