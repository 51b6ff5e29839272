"""What all data set builders share: one schema, grouping by shared source video, and reading files by content.

Imports only `datasets`, Pillow and the standard library, so that a builder beside it stays usable as a loading script.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from PIL import Image, UnidentifiedImageError

__all__ = [
    "CLASS_NAMES",
    "Finding",
    "INSIDE",
    "PICTURE_SUFFIXES",
    "RawBuilder",
    "RawConfig",
    "Unit",
    "components",
    "detection_features",
    "first_names",
    "identical_files",
    "is_picture",
    "list_files",
    "read_image_format",
    "read_json",
    "refuse_outside",
    "require_folder",
    "split_by_group",
    "stable_id",
    "walk_files",
]

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
SPLIT_ORDER = ("train", "validation", "test")
INSIDE = "::"  # between an archive and a member, as in `train.zip::doc/real/1.jpg`
CLASS_NAMES = ["real", "fake"]  # label 0 and 1, whatever the source data used


def detection_features(mask: bool = False, dialogue: bool = False) -> datasets.Features:
    """The schema of every builder of this package.

    Args:
        mask: whether rows carry a manipulation mask.
        dialogue: whether rows carry a question, its answers and the same as chat `messages`.

    Returns:
        Features. `video_id` is `<data set>/<method>/<name>`, because bare names collide between methods; `group_id` is
        the connected component over shared source material, by which splits must be made.
    """
    text = datasets.Value("string")
    features: dict[str, Any] = {
        "id": text,
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=CLASS_NAMES),
        "manipulation": text,
        "family": text,  # swap, reenact, synthesis, edit or inpaint; null for real
        "video_id": text,
        "group_id": text,
        "target_id": text,
        "source_id": text,
        "frame": datasets.Value("int32"),
        "compression": text,
        "category": text,
        "file_format": text,  # by content: a file name may lie, and a format that follows the class is a shortcut
    }
    if mask:
        features["mask"] = datasets.Image()
    if dialogue:
        features["question"] = text
        features["answer"] = text
        features["answers"] = [text]
        features["messages"] = [{"role": text, "content": text}]
    return datasets.Features(features)


def components(links: Iterable[Sequence[Hashable]]) -> dict[Any, Any]:
    """Connected components of a graph.

    Args:
        links: the nodes that belong together, one sequence each; a single node stands for itself.

    Returns:
        For every node the smallest node of its component, which names it whatever the order of `links`.
    """
    parent: dict[Any, Any] = {}

    def root(node: Any) -> Any:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for nodes in links:
        roots = sorted({root(node) for node in nodes})
        for other in roots[1:]:
            parent[other] = roots[0]
    return {node: root(node) for node in parent}


def split_by_group(group_ids: Sequence[str], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split rows so that no group lies on both sides.

    Args:
        group_ids: the group of each row.
        fraction: share of rows for the second part, in (0, 1). Groups are drawn until it is reached.
        seed: the same seed and groups give the same split, whatever the order of the rows.

    Returns:
        Row indices of the first part (for training) and of the second (for validation), each ascending.

    Raises:
        ValueError: if `fraction` is out of range, or if there are too few groups to put one on each side.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"The validation fraction is {fraction}, expected a share between 0 and 1 (exclusive).")
    rows: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(group_ids):
        rows[group].append(index)
    if len(rows) < 2:
        raise ValueError(
            f"{len(group_ids)} rows in {len(rows)} group(s) cannot be split: pictures of one group share source "
            "videos and must stay together. Give at least two groups, or a validation split of its own."
        )
    order = sorted(rows)
    random.Random(seed).shuffle(order)
    second: list[int] = []
    for group in order[:-1]:  # one group always stays in the first part
        if len(second) >= fraction * len(group_ids):
            break
        second.extend(rows[group])
    chosen = set(second)
    return [index for index in range(len(group_ids)) if index not in chosen], sorted(second)


def require_folder(path: Path, what: str, remedy: str) -> Path:
    """Return `path` if it is a folder, else raise a `FileNotFoundError` that says what it should hold."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder, but it should hold {what}. {remedy}")
    return path


def list_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def read_image_format(path: Path) -> str:
    """Decode a picture in full and return its format by content, for example `"JPEG"`.

    Raises:
        ValueError: naming the file, if it is empty, truncated or no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return str(image.format)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) cannot be decoded: {error}. Fetch this file again."
        ) from error


def identical_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of two or more files with the same bytes, in the order given."""
    by_digest: Mapping[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_digest[hashlib.sha256(path.read_bytes()).hexdigest()].append(path)
    return [group for group in by_digest.values() if len(group) > 1]


class Finding(NamedTuple):
    """What was noticed about a raw copy: an `error` where it contradicts the official list or count, else `warning` or
    `note`."""

    level: str
    message: str


class Unit(NamedTuple):
    """What one shard item stands for: a picture, or the frames of one video.

    Args:
        id: unique in the data set and the same on every machine: no absolute path, Unicode in NFC.
        path: the file or folder with the pixels.
        columns: the columns of its rows that do not change from frame to frame.
        frames: file names or frame numbers; empty for a single picture.
        masks: the folder or clip with the masks of the frames; empty for none.
    """

    id: str
    path: str
    columns: dict[str, Any]
    frames: tuple[Any, ...] = ()
    masks: str = ""

    @property
    def rows(self) -> int:
        return len(self.frames) or 1

    def files(self) -> Iterator[Path]:
        """The files that its rows are read from, the frames of a folder one by one."""
        place = Path(self.path.partition(INSIDE)[0])
        if self.frames and place.is_dir():
            yield from (place / str(name) for name in self.frames)
        else:
            yield place
        masks = Path(self.masks)
        if self.masks:
            yield from (walk_files(masks, masks) if masks.is_dir() else (masks,))
        if self.columns.get("mask"):
            yield Path(self.columns["mask"])


@dataclass
class RawConfig(datasets.BuilderConfig):
    """What every config knows.

    Args:
        allow_missing: build what is there although files of the official list are missing. They are logged and listed
            by `check` all the same.
    """

    allow_missing: bool = False

    def check(self) -> None:
        """Raise a `ValueError` for a value outside its allowed set."""


class RawBuilder(datasets.GeneratorBasedBuilder):
    """Base of the builders: finds the units of each split, refuses what is ambiguous, writes down what it noticed.

    A subclass sets the class attributes and writes `units`, and `examples` where a unit is not one picture.
    """

    NAME = ""
    TERMS = ""
    LAYOUT = ""
    REMEDY = ""
    HOMEPAGE = ""
    LAYOUT_VERIFIED = True  # False where layout or counts come from hearsay; `info` and `check` say so
    RESEARCH_ONLY = True  # False only where the terms allow more than non-commercial research, or are the user's own
    UNIT_NAME = "pictures"
    BUILDER_CONFIG_CLASS = RawConfig
    log_findings = True
    findings: list[Finding]
    missing: list[str]

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """The units of each split, in the data set's own order where it has one."""
        raise NotImplementedError

    def has_masks(self) -> bool:
        """Whether this config's rows carry a mask."""
        return False

    def has_dialogue(self) -> bool:
        """Whether this config's rows carry a question and its answers."""
        return False

    def official_counts(self) -> dict[str, dict[str, int]]:
        """Units per split and class as published, for this config; empty where nothing is published."""
        return {}

    def likely_counts(self) -> dict[str, dict[str, int]]:
        """Counts whose source is not certain: a difference is a warning."""
        return {}

    def examples(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """The rows of a unit."""
        yield {"id": unit.id, "image": unit.path, "file_format": read_image_format(Path(unit.path)), **unit.columns}

    def report(self, level: str, message: str) -> None:
        """Note a finding for `check`, and log it if it is more than a remark."""
        self.findings.append(Finding(level, message))
        if self.log_findings and level != "note":
            logger.warning("%s: %s", self.NAME, message)

    def inspect(self, root: Path) -> dict[str, list[Unit]]:
        """The units of each split after all checks that need no decoding; fills `findings`.

        Raises:
            FileNotFoundError: if the folder or something in it is missing.
            ValueError: for ids that occur twice, an empty result, or whatever a subclass refuses.
        """
        self.findings, self.missing = [], []
        if not self.LAYOUT_VERIFIED:
            self.report("warning", "Layout not verified against an original copy; compare with what `info` describes.")
        root = require_folder(Path(root).expanduser().resolve(), f"the raw files of {self.NAME}", self.REMEDY)
        found = self.units(root)
        order = [*SPLIT_ORDER, *found]
        splits = {name: found[name] for name in sorted(found, key=order.index) if found[name]}
        if not splits:
            raise FileNotFoundError(f"{root} holds nothing of {self.NAME} that this config reads. {self.REMEDY}")
        seen: dict[str, Unit] = {}
        for unit in (unit for units in splits.values() for unit in units):
            if unit.id in seen:
                raise ValueError(
                    f"{unit.path} and {seen[unit.id].path} have the same id {unit.id!r}; keep one of the two."
                )
            seen[unit.id] = unit
        if self.missing:
            self.report("error", f"{len(self.missing)} listed file(s) missing: {first_names(self.missing)}.")
        self._compare_counts(splits, self.official_counts(), "error" if self.LAYOUT_VERIFIED else "warning")
        self._compare_counts(splits, self.likely_counts(), "warning")
        return splits

    def _compare_counts(self, splits: dict[str, list[Unit]], counts: dict[str, dict[str, int]], level: str) -> None:
        for split, classes in counts.items():
            found = Counter(unit.columns["label"] for unit in splits.get(split, []))
            for label, expected in classes.items():
                if found[label] != expected:
                    self.report(level, f"{split}: {found[label]} {label} {self.UNIT_NAME}, published are {expected}.")

    def _info(self) -> datasets.DatasetInfo:
        self.config.check()  # here: options given to the builder are set behind the config's __post_init__
        return datasets.DatasetInfo(
            description=inspect.getdoc(type(self)) or "",
            features=detection_features(mask=self.has_masks(), dialogue=self.has_dialogue()),
            homepage=self.HOMEPAGE,
            license=self.TERMS,
            version=self.config.version,
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        if dl_manager.manual_dir is None:
            raise ValueError(f"{self.NAME} cannot be downloaded by a builder, and data_dir is not set. {self.REMEDY}")
        splits = self.inspect(Path(dl_manager.manual_dir))
        if self.missing and not self.config.allow_missing:
            raise FileNotFoundError(
                f"{len(self.missing)} listed file(s) of {self.NAME} are missing: {first_names(self.missing)}. Fetch "
                "them, or pass allow_missing=True to build the rest."
            )
        # Lists, so that num_proc can shard them.
        return [datasets.SplitGenerator(name=name, gen_kwargs={"units": units}) for name, units in splits.items()]

    def _generate_examples(self, units: list[Unit]) -> Iterator[tuple[str, dict[str, Any]]]:
        for unit in units:
            for row in self.examples(unit):
                yield row["id"], row


def stable_id(*parts: str) -> str:
    """Join with `/` and normalise: some file systems store accents decomposed, others composed."""
    return unicodedata.normalize("NFC", "/".join(parts))


def walk_files(root: Path, folder: Path) -> Iterator[Path]:
    """The files below `folder` in a stable order, without hidden ones.

    Raises:
        ValueError: for a link that leaves `root` or leads to a folder: its content depends on the machine, or would be
            read twice.
    """
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise ValueError(f"{Path(parent) / name} is a link to a folder; put the folder itself in its place.")
        for name in sorted(files):
            if not name.startswith("."):
                path = Path(parent) / name
                refuse_outside(root, path)
                yield path


def refuse_outside(root: Path, path: Path) -> None:
    """Raise a `ValueError` if `path` is a link, or lies behind one, that leaves `root`."""
    if not path.resolve().is_relative_to(root):
        raise ValueError(f"{path} leads out of {root}, to {path.resolve()}. Replace it by the file itself.")


def is_picture(path: Path) -> bool:
    """Whether the file name has the extension of a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def read_json(path: Path, remedy: str) -> Any:
    """Parse a JSON file.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: naming it, if it is no JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. {remedy}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Fetch this file again.") from error


def first_names(names: Iterable[Any], limit: int = 3) -> str:
    """`a, b, c and 5 more`, for messages about many files."""
    listed = [str(name) for name in names]
    rest = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + rest
