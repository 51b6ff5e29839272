"""WildDeepfake: sequences of face crops from internet videos.

Zi et al., "WildDeepfake: A Challenging Real-World Dataset for Deepfake Detection" (ACM MM 2020). Expected:

    {real,fake}_{train,test}/<n>.tar.gz          or with a space; each contains <sequence>/<frame number>.png
    {real,fake}_{train,test}/<n>/<sequence>/...  the same unpacked
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import datasets

from ._archives import list_members, read_picture
from ._builder import INSIDE, RawBuilder, RawConfig, Unit, unit_columns
from ._files import first_names, is_picture, refuse_outside, stable_id, walk_files
from ._frames import frame_key, natural_order, spread

__all__ = ["WildDeepfake", "WildDeepfakeConfig"]

VERSION = datasets.Version("1.0.0")
FOLDERS = {f"{label}_{split}": (label, split) for split in ("train", "test") for label in ("real", "fake")}
ARCHIVES = (".tar.gz", ".tgz", ".tar")  # some .tar.gz are plain tars; the reader detects this from the content
SEQUENCES = {"real": 3805, "fake": 3509}


@dataclass
class WildDeepfakeConfig(RawConfig):
    """Selection of the frames of a sequence that become rows.

    Args:
        frames_per_video: number of frames, evenly spaced from the first to the last; 0 for all.
    """

    frames_per_video: int = 32

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        if self.frames_per_video < 0:
            raise ValueError(
                f"frames_per_video is {self.frames_per_video}, expected a positive number, or 0 for all frames."
            )


class WildDeepfake(RawBuilder):
    """WildDeepfake: 7,314 face sequences from 707 videos, already cropped.

    Sequence names repeat in every folder and archive, so both are part of the id. Each archive is a group, because the
    video of a sequence is not published. Listing compressed archives reads them once before the build; unpacked
    folders are faster.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = WildDeepfakeConfig
    BUILDER_CONFIGS = [WildDeepfakeConfig(name="default", version=VERSION, description="All sequences.")]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "WildDeepfake"
    TERMS = "WildDeepfake agreement, which must be signed: research only, no redistribution."
    LAYOUT = "{real,fake}_{train,test}/<n>.tar.gz with <sequence>/<frame number>.png, or the same unpacked"
    LAYOUT_VERIFIED = False  # the contents of archives and the counts per class are unverified
    REMEDY = "Point data_dir at the folder with real_train/ (github.com/OpenTAI/wild-deepfake)."
    HOMEPAGE = "https://github.com/OpenTAI/wild-deepfake"
    UNIT_NAME = "sequences"

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per sequence, in the order of the archives and their members."""
        folders = self._folders(root)
        splits: dict[str, list[Unit]] = {"train": [], "test": []}
        for name, (label, split) in FOLDERS.items():
            if name in folders:
                found = list(self._sequences(root, name, folders[name], label))
                if not found:
                    self.missing.append(f"{folders[name]} (no sequences)")
                splits[split] += found
            else:
                self.missing.append(f"{root / name} (folder)")
        counts = Counter(unit.columns["label"] for units in splits.values() for unit in units)
        for label, expected in SEQUENCES.items():  # published for both splits together
            if counts[label] != expected:
                self.report("warning", f"{counts[label]} {label} sequences, but {expected} were published.")
        return splits

    def _folders(self, root: Path) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in (path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")):
            name = path.name.replace(" ", "_").casefold()
            if name not in FOLDERS:
                self.report("error", f"{path} is ignored, because it is not one of {', '.join(FOLDERS)}.")
            elif name in found:
                raise ValueError(f"{path} and {found[name]} are the same part of the dataset; keep one of them.")
            else:
                found[name] = path
        return found

    def _sequences(self, root: Path, name: str, folder: Path, label: str) -> Iterator[Unit]:
        ignored: list[str] = []
        seen: dict[str, Path] = {}
        for path in sorted(folder.iterdir(), key=lambda path: natural_order(path.name)):
            if path.name.startswith("."):
                continue
            suffix = next((suffix for suffix in ARCHIVES if path.name.casefold().endswith(suffix)), "")
            if not path.is_dir() and not suffix:
                ignored.append(str(path))
                continue
            refuse_outside(root, path)
            part = stable_id(path.name[: len(path.name) - len(suffix)])
            if part in seen:
                raise ValueError(f"{path} and {seen[part]} are the same archive by name; keep one of them.")
            seen[part] = path
            sequences: dict[str, list[str]] = defaultdict(list)
            for member in _members(root, path):
                if is_picture(Path(member)):
                    sequences[_sequence(path, member, label)].append(member)
                else:
                    ignored.append(f"{member} in {path}")
            if not sequences:
                self.missing.append(f"{path} (no sequences)")
            for sequence, frames in sequences.items():
                yield self._unit(path, (name, part, sequence), frames, label)
        numbers = {int(part) for part in seen if part.isdecimal()}
        gaps = sorted(set(range(min(numbers, default=0), max(numbers, default=0))) - numbers)
        if gaps:
            self.report("warning", f"{folder} lacks archive {first_names(gaps)}, although higher numbers exist.")
        if ignored:
            self.report(
                "warning", f"{len(ignored)} file(s) ignored because they are not images: {first_names(ignored)}."
            )

    def _unit(self, path: Path, place: tuple[str, ...], frames: list[str], label: str) -> Unit:
        if len({frame_key(frame) for frame in frames}) < len(frames):
            raise ValueError(f"{place[-1]} in {path} contains a frame under two names; keep one of them.")
        columns = unit_columns(
            label=label,
            group_id=stable_id("WildDeepfake", *place[:2]),
            manipulation="wilddeepfake",
            family="swap",
            video_id=stable_id("WildDeepfake", *place),
        )
        ordered = sorted(frames, key=natural_order)
        chosen = {ordered[index] for index in spread(len(ordered), self.config.frames_per_video)}
        # In archive order, because compressed archives are only fast to read that way.
        kept = tuple(frame for frame in frames if frame in chosen)
        return Unit(stable_id("wilddeepfake", *place), f"{path}{'' if path.is_dir() else INSIDE}", columns, kept)

    def examples(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """Yield the chosen frames of a sequence, from the archive or the folder."""
        archive, inside, _ = unit.path.partition(INSIDE)
        for name in unit.frames:
            file = Path(archive) / name
            picture = (
                read_picture(Path(archive), name, self.config.max_pixels)
                if inside
                else self.picture_columns(str(file))
            )
            number = frame_key(name)
            row = {"id": stable_id(unit.id, file.stem), "frame": number if isinstance(number, int) else None}
            yield {**unit.columns, **row, **picture}


def _members(root: Path, path: Path) -> Iterator[str]:
    """Return the members of an archive or its unpacked folder, without hidden files."""
    if path.is_dir():
        if path.is_symlink():
            raise ValueError(f"{path} is a link to a folder; put the folder itself in its place.")
        yield from (file.relative_to(path).as_posix() for file in walk_files(root, path))
    else:
        yield from (name for name in list_members(path) if not PurePosixPath(name).name.startswith("."))


def _sequence(path: Path, member: str, label: str) -> str:
    """Return the folder of a frame, which must not be named after the other class."""
    folder = PurePosixPath(member).parent
    other = {"real": "fake", "fake": "real"}[label]
    if other in (part.casefold() for part in folder.parts):
        raise ValueError(f"{member} in {path} is in a folder named {other}, but everything here is {label}.")
    return folder.as_posix()
