"""DF40: forty forgery methods, with the original frames of FaceForensics++ and Celeb-DF.

Yan et al., "DF40: Toward Next-Generation Deepfake Detection" (NeurIPS 2024). Expected, each part optional:

    DF40_train/<method>/[ff/][frames/]<video>/<frame>.png            training fakes, from FaceForensics++ only
    DF40/<method>/{ff,cdf}/[frames/]<video>/<frame>.png              test fakes
    DF40/<method>/{fake,real}/...                                    methods with their own real images
    FaceForensics++/original_sequences/youtube/c23/frames/<video>/   real, with train.json, val.json, test.json
    Celeb-DF-v2/{Celeb-real,YouTube-real}/frames/<video>/            real, with List_of_testing_videos.txt
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import datasets

from ._builder import Unit, unit_columns
from ._deepfakebench import METHODS, OWN_REALS, method_name
from ._files import first_names, is_picture, stable_id, walk_files
from ._frames import FrameBuilder, FrameConfig, beside_frames, frame_key, natural_order, spread
from ._releases import CELEB_LIST, FF_LISTS, read_celeb_list, read_splits, related_videos

__all__ = ["DF40", "DF40Config"]

VERSION = datasets.Version("1.0.0")
SECTIONS = {"DF40_train": "train", "DF40": "test"}
DOMAINS = ("ff", "cdf")
NOT_FRAMES = frozenset({"masks", "landmarks"})
FF_NAME = re.compile(r"\d{3}(_\d{3})?")
CELEB_NAME = re.compile(r"id\d+_(id\d+_)?\d{4}|\d{5}")
FF_REALS = "FaceForensics++/original_sequences/youtube/c23/frames"
CELEB_REALS = ("Celeb-real", "YouTube-real")


@dataclass
class DF40Config(FrameConfig):
    """Selection of the fakes.

    Args:
        methods: names of methods; empty for all available ones.
        domains: `"ff"` and `"cdf"`, the datasets that the fakes were made from. Methods with their own real images,
            and those without a source image, belong to neither and are always read.
    """

    methods: tuple[str, ...] = ()
    domains: tuple[str, ...] = DOMAINS

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        unknown = [name for name in self.methods if method_name(name) is None]
        if unknown:
            raise ValueError(f"methods has {unknown}, expected some of {', '.join(METHODS)}.")
        if not self.domains or set(self.domains) - set(DOMAINS):
            raise ValueError(f"domains is {self.domains}, expected some of {', '.join(DOMAINS)}.")
        if self.source not in ("auto", "frames"):
            raise ValueError(f"source is {self.source!r}, but DF40 only has frames.")


class Clip(NamedTuple):
    """A folder of frames."""

    folder: Path
    frames: list[str]
    label: str
    method: str
    domain: str | None
    split: str
    identity: str

    @property
    def video(self) -> str | None:
        """Return the name of a FaceForensics++ or Celeb-DF video; synthetic images are in numbered folders instead."""
        name = stable_id(self.folder.name)
        pattern = {"ff": FF_NAME, "cdf": CELEB_NAME}.get(self.domain or "")
        return name if pattern is not None and pattern.fullmatch(name) else None


class DF40(FrameBuilder):
    """DF40: training fakes of FaceForensics++, test fakes of FaceForensics++ and Celeb-DF, and their real frames.

    Real frames are assigned by the official lists, and fakes that belong to another split by those lists are reported.
    Empty files, which occur in the release, count as missing. Folders named `masks` next to `frames` are read on
    request.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = DF40Config
    BUILDER_CONFIGS = [
        DF40Config(name="default", version=VERSION, description="All methods."),
        DF40Config(name="ff", version=VERSION, domains=("ff",), description="Made from FaceForensics++."),
        DF40Config(name="cdf", version=VERSION, domains=("cdf",), description="Made from Celeb-DF; test only."),
    ]
    DEFAULT_CONFIG_NAME = "default"
    NAME = "DF40"
    TERMS = "CC BY-NC 4.0, access by form, and the terms of FaceForensics++ and Celeb-DF: non-commercial research."
    LAYOUT = "DF40_train/<method>/..., DF40/<method>/{ff,cdf,fake,real}/..., FaceForensics++/..., Celeb-DF-v2/..."
    LAYOUT_VERIFIED = False  # folder levels are from third-party sources, and differ between methods
    REMEDY = "Point data_dir at the folder above DF40/ and DF40_train/ (github.com/YZY-stack/DF40)."
    HOMEPAGE = "https://github.com/YZY-stack/DF40"
    SHIPS_MASKS = True

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per folder of frames: real ones, then method by method."""
        fakes = [clip for section, split in SECTIONS.items() for clip in self._section(root, section, split)]
        where = self._official_splits(root)
        fakes = self._move(fakes, where)
        reals = [*self._reals(root, root / FF_REALS, "ff", where), *self._celeb_df(root)]
        clips = [*reals, *fakes]
        groups = _related(clips)
        if fakes and not any(clip.label == "real" for clip in clips):
            self.report("error", "The real class is missing: add the frames of FaceForensics++ or Celeb-DF-v2.")
        absent = [name for name in METHODS if name not in {clip.method for clip in fakes}]
        if absent and not self.config.methods:
            self.report("warning", f"{len(absent)} methods are missing: {first_names(absent, limit=len(absent))}.")
        splits: dict[str, list[Unit]] = {"train": [], "validation": [], "test": []}
        for clip in clips:
            splits[clip.split].append(self._unit(root, clip, groups))
        return splits

    def _section(self, root: Path, section: str, split: str) -> Iterator[Clip]:
        folder = root / section
        wanted = {method_name(name) for name in self.config.methods}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith("."):
                continue
            method = method_name(path.name) if path.is_dir() else None
            if method is None:
                hint = " uniface's archive lacks its top folder: create it." if path.name in DOMAINS else ""
                self.report("error", f"{path} is ignored, because it is not one of the methods.{hint}")
            elif not wanted or method in wanted:
                yield from self._clips(root, path, (section, method), split)

    def _clips(self, root: Path, folder: Path, place: tuple[str, str], split: str) -> Iterator[Clip]:
        section, method = place
        frames = _frames(root, folder)
        other: list[str] = []
        seen: dict[str, Path] = {}
        for parent, files in frames.items():
            pictures = [name for name in files if is_picture(Path(name))]
            other += [str(parent / name) for name in files if name not in pictures]
            parts = parent.relative_to(folder).parts
            domain = parts[0] if parts and parts[0] in DOMAINS else None
            # Training fakes of videos have no folder level for the domain, which can only be FaceForensics++.
            if section == "DF40_train":
                if domain == "cdf":
                    raise ValueError(f"{parent}: fakes of Celeb-DF are test data. Move them to DF40.")
                domain = "ff" if METHODS[method] in ("swap", "reenact") else domain
            if not pictures or (domain is not None and domain not in self.config.domains):
                continue
            label = "real" if "real" in (part.casefold() for part in parts) else "fake"
            if label == "real" and method not in OWN_REALS:
                raise ValueError(f"{parent}: {method} does not have its own real images. Move this folder elsewhere.")
            identity = stable_id("df40", section, method, *(part for part in parts if part != "frames"))
            if identity in seen:
                raise ValueError(f"{parent} and {seen[identity]} are the same folder by name; keep one of them.")
            seen[identity] = parent
            clip = Clip(parent, self._whole(parent, pictures), label, method, domain, split, identity)
            if clip.frames:
                yield clip
        if other:
            self.report(
                "warning", f"{method}: {len(other)} file(s) ignored because they are not images: {first_names(other)}."
            )

    def _whole(self, folder: Path, pictures: list[str]) -> list[str]:
        """Return the images that are not empty files."""
        empty = [name for name in pictures if not (folder / name).stat().st_size]
        self.missing += [f"{folder / name} (empty)" for name in empty]
        if len({frame_key(name) for name in pictures}) < len(pictures):
            raise ValueError(f"{folder} holds a frame under two names, such as 1.png and 001.jpg; keep one of them.")
        return sorted(set(pictures) - set(empty), key=natural_order)

    def _official_splits(self, root: Path) -> dict[str, str]:
        """Return the split of each FaceForensics++ video; empty if its frames are not selected or do not exist."""
        if "ff" not in self.config.domains or not (root / FF_REALS).is_dir():
            return {}
        pairs = read_splits(root / "FaceForensics++", FF_LISTS, self.REMEDY)
        return {video: split for split, found in pairs.items() for pair in found for video in pair}

    def _move(self, fakes: list[Clip], where: dict[str, str]) -> list[Clip]:
        """Move fakes of FaceForensics++ to the official split of their target."""
        official = [
            where.get(clip.video[:3], clip.split) if clip.domain == "ff" and clip.video else clip.split
            for clip in fakes
        ]
        moved = [
            f"{clip.folder} ({split})" for clip, split in zip(fakes, official, strict=True) if clip.split != split
        ]
        if moved:
            self.report("warning", f"{len(moved)} fakes moved to their official split: {first_names(moved)}.")
        return [clip._replace(split=split) for clip, split in zip(fakes, official, strict=True)]

    def _celeb_df(self, root: Path) -> Iterator[Clip]:
        """Return real test frames of Celeb-DF."""
        folder = root / "Celeb-DF-v2"
        if "cdf" not in self.config.domains or not any((folder / name).is_dir() for name in CELEB_REALS):
            return
        tested = read_celeb_list(folder / CELEB_LIST, self.REMEDY)
        for name in CELEB_REALS:
            where = {video.split("/")[1]: "test" for video in tested if video.startswith(f"{name}/")}
            yield from self._reals(root, folder / name / "frames", "cdf", where)

    def _reals(self, root: Path, folder: Path, domain: str, where: dict[str, str]) -> Iterator[Clip]:
        unread = dict(where)
        other: list[str] = []
        for parent, files in (_frames(root, folder) if folder.is_dir() else {}).items():
            video = stable_id(parent.name)
            frames = self._whole(parent, [name for name in files if is_picture(Path(name))])
            if video not in unread:
                other.append(str(parent))
            elif frames:
                identity = stable_id("df40", domain, folder.parent.name, video)
                yield Clip(parent, frames, "real", "real", domain, unread.pop(video), identity)
        self.missing += [str(folder / video) for video in unread]
        if other:  # for Celeb-DF, these are its training videos
            self.report(
                "warning" if domain == "ff" else "note",
                f"{len(other)} real videos ignored because they are not in a list of this config: "
                f"{first_names(other)}.",
            )

    def _unit(self, root: Path, clip: Clip, groups: dict[str, str]) -> Unit:
        people = clip.video.split("_") if clip.video else []
        place = clip.folder.parent.parent.name if clip.domain == "cdf" and clip.label == "real" else clip.method
        target = clip.video
        if clip.label == "fake" and len(people) > 1:
            target = people[0] if clip.domain == "ff" else f"{people[0]}_{people[-1]}"
        source_set = {"ff": "FaceForensics++", "cdf": "Celeb-DF-v2"}.get(clip.domain or "", "DF40")
        columns = unit_columns(
            label=clip.label,
            group_id=f"{source_set}/{groups[people[0]]}" if people else clip.identity,
            manipulation=clip.method,
            family=METHODS.get(clip.method),
            video_id=stable_id(source_set, place, clip.video) if clip.video else None,
            target_id=target,
            source_id=people[1] if len(people) > 1 else None,
            compression="c23" if clip.domain == "ff" else None,
            category=clip.domain,
        )
        chosen = [clip.frames[index] for index in spread(len(clip.frames), self.config.frames_per_video)]
        unit = Unit(clip.identity, str(clip.folder), columns, tuple(chosen if clip.video else clip.frames))
        masked = clip.label == "fake" and "frames" in clip.folder.relative_to(root).parts
        return self.with_masks(root, unit, beside_frames(root, clip.folder) if masked else None)


def _frames(root: Path, folder: Path) -> dict[Path, list[str]]:
    """Yield the files of each subfolder, without masks and landmarks."""
    found: dict[Path, list[str]] = defaultdict(list)
    for path in walk_files(root, folder):
        if not NOT_FRAMES & set(path.relative_to(folder).parts[:-1]):
            found[path.parent].append(path.name)
    return found


def _related(clips: list[Clip]) -> dict[str, str]:
    """Return FaceForensics++ videos that were swapped with each other, and people of Celeb-DF."""
    links = []
    for clip in clips:
        if clip.video:
            parts = clip.video.split("_")
            links.append(tuple(parts) if clip.domain == "ff" else tuple(parts[:-1]) or (clip.video,))
    return related_videos(links)
