"""What all data set builders share: one schema, grouping by shared source video, and the checks before building.

Imports only `datasets`, neighbours and the standard library, so that a builder stays usable as a loading script.
"""

from __future__ import annotations

import inspect
import logging
import os
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from PIL import Image

from ._files import MAX_PIXELS, CheckedPicture, check_image, first_names, open_image, require_folder, walk_files

__all__ = [
    "CLASS_NAMES",
    "Finding",
    "INSIDE",
    "RawBuilder",
    "RawConfig",
    "Unit",
    "components",
    "detection_features",
    "split_by_group",
    "unit_columns",
]

logger = logging.getLogger(__name__)

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


def unit_columns(
    label: str,
    group_id: str,
    manipulation: str | None,
    family: str | None = None,
    video_id: str | None = None,
    target_id: str | None = None,
    source_id: str | None = None,
    compression: str | None = None,
    category: str | None = "face",
) -> dict[str, Any]:
    """The columns of a unit in the schema of `detection_features`; `manipulation` of a real one is always `real`."""
    return {
        "label": label,
        "manipulation": "real" if label == "real" else manipulation,
        "family": None if label == "real" else family,
        "video_id": video_id,
        "group_id": group_id,
        "target_id": target_id,
        "source_id": None if label == "real" else source_id,
        "frame": None,
        "compression": compression,
        "category": category,
    }


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


@dataclass(frozen=True)
class Finding:
    """One observation about a data set, by a builder, `check_dataset` or `lint_dataset`.

    Args:
        level: of raw files, `error` where they contradict the official list or count; of a lint, `error` where a
            detector can solve the set, or a part of it, without looking at the forgery, or where its score would be
            wrong. `warning` and `note` for less, `ok` for a check that passed.
        message: a sentence for a reader.
        code: stable name of what was looked at.
        split: the split it is about, or `None`.
        details: the numbers, and examples by id; JSON-serialisable.
    """

    level: str
    message: str
    code: str = "raw-files"
    split: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as they stand in a `lint.json`."""
        return asdict(self)


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

    def files(self) -> Iterator[str]:
        """The paths of the files that its rows are read from, the frames of a folder one by one."""
        place = self.path.partition(INSIDE)[0]
        if self.frames and Path(place).is_dir():
            yield from (f"{place}{os.sep}{name}" for name in self.frames)
        else:
            yield place
        if self.masks:
            masks = Path(self.masks)
            yield from (map(str, walk_files(masks, masks)) if masks.is_dir() else (self.masks,))
        if self.columns.get("mask"):
            yield self.columns["mask"]


@dataclass
class RawConfig(datasets.BuilderConfig):
    """What every config knows.

    Args:
        allow_missing: build what is there although files of the official list are missing. They are logged and listed
            by `check` all the same.
        max_pixels: width times height of a picture that is decoded; see `open_image`.
    """

    allow_missing: bool = False
    max_pixels: int = MAX_PIXELS

    def check(self) -> None:
        """Raise a `ValueError` for a value outside its allowed set."""
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels is {self.max_pixels}, expected 1 or more.")


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
    SOURCE_SUFFIXES: tuple[str, ...] = ()  # of files that may be given as `data_dir`, in place of a folder
    BUILDER_CONFIG_CLASS = RawConfig
    log_findings = True
    embed_files = False  # True: rows hold the content of picture files, which was read to check them, not their paths
    decode_listed = True  # False where `units` must not decode: lint measures every picture, also beside broken ones
    findings: list[Finding]
    kept: dict[str, list[Unit]] | None = None  # what `keep_splits` was given
    missing: list[str]
    ignored: list[str]  # files that `units` came across and has no use for

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """The units of each split, in the data set's own order where it has one."""
        raise NotImplementedError

    @classmethod
    def set_of(cls, identity: str) -> str | None:
        """The set of one class that the row of this id is of; `None` where the data are not made of such sets."""
        return None

    def has_masks(self) -> bool:
        """Whether this config's rows carry a mask."""
        return False

    def has_dialogue(self) -> bool:
        """Whether this config's rows carry a question and its answers."""
        return False

    def official_counts(self) -> dict[str, dict[str, int]]:
        """Units per split and class as published, for this config; a difference is an error."""
        return {}

    def likely_counts(self) -> dict[str, dict[str, int]]:
        """Counts whose source is not certain: a difference is a warning."""
        return {}

    def examples(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """The rows of a unit."""
        yield {"id": unit.id, **self.picture_columns(unit.path), **unit.columns}

    def open_picture(self, source: Path | str | bytes, where: str = "", mode: str | None = None) -> Image.Image:
        """Decode a picture within the limit of the config; see `open_image`."""
        return open_image(source, where, mode, self.config.max_pixels)

    def check_picture(self, source: Path | str | bytes, where: str = "") -> CheckedPicture:
        """Read a picture to its end, within the limit of the config; see `check_image`."""
        return check_image(source, where, self.config.max_pixels)

    def picture_columns(self, path: str) -> dict[str, Any]:
        """The columns `image` and `file_format` of a picture file, which is checked."""
        checked = self.check_picture(path)
        return {"image": self.image_cell(path, checked), "file_format": checked.format}

    def image_cell(self, path: str, checked: CheckedPicture) -> Any:
        """What the rows hold of a picture file."""
        return {"bytes": checked.content, "path": path} if self.embed_files else path

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
        self.findings, self.missing, self.ignored = [], [], []
        if not self.LAYOUT_VERIFIED:
            self.report("warning", "Layout not verified against an original copy; compare it with `LAYOUT`.")
        root = require_folder(Path(root).expanduser().resolve(), f"the raw files of {self.NAME}", self.REMEDY)
        found = self.units(root)
        order = [*SPLIT_ORDER, *found]
        splits = {name: found[name] for name in sorted(found, key=order.index) if found[name]}
        if not splits:
            absent = f"Missing: {first_names(self.missing)}. " if self.missing else ""
            raise FileNotFoundError(
                f"{root} holds nothing of {self.NAME} that this config reads. {absent}{self.REMEDY}"
            )
        seen: dict[str, Unit] = {}
        for unit in (unit for units in splits.values() for unit in units):
            if unit.id in seen:
                raise ValueError(
                    f"{unit.path} and {seen[unit.id].path} have the same id {unit.id!r}; keep one of the two."
                )
            seen[unit.id] = unit
        self._report_shared_groups(splits)
        if self.ignored:
            self.report("warning", f"{len(self.ignored)} unsupported file(s) ignored: {first_names(self.ignored)}.")
        if self.missing:
            self.report("error", f"{len(self.missing)} listed file(s) missing: {first_names(self.missing)}.")
        self._compare_counts(splits, self.official_counts(), "error")
        self._compare_counts(splits, self.likely_counts(), "warning")
        return splits

    def _report_shared_groups(self, splits: dict[str, list[Unit]]) -> None:
        where: dict[str, set[str]] = defaultdict(set)
        for split, units in splits.items():
            for unit in units:
                where[unit.columns["group_id"]].add(split)
        shared = sorted(group for group, found in where.items() if len(found) > 1)
        if shared:
            text = f"{len(shared)} group(s) of related material lie in several splits: {first_names(shared)}."
            self.report("note", text)

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

    def find_splits(self) -> dict[str, list[Unit]]:
        """Return the units of each split, to be built; nothing is decoded.

        Raises:
            FileNotFoundError: for listed files that are missing, unless `allow_missing` is set.
            ValueError: as `inspect`, or where `data_dir` is not set.
        """
        if self.config.data_dir is None:
            raise ValueError(f"{self.NAME} cannot be downloaded by a builder, and data_dir is not set. {self.REMEDY}")
        splits = self.inspect(Path(self.config.data_dir))
        if self.missing and not self.config.allow_missing:
            raise FileNotFoundError(
                f"{len(self.missing)} listed file(s) of {self.NAME} are missing: {first_names(self.missing)}. Fetch "
                "them, or pass allow_missing=True to build the rest."
            )
        return splits

    def keep_splits(self, splits: dict[str, list[Unit]]) -> None:
        """Build these, some of what `find_splits` gave, and do not look at the raw files again."""
        self.kept = splits
        self.info.splits = None  # the others are not expected, though a cached build of the whole set knows them

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        splits = self.find_splits() if self.kept is None else self.kept
        # Lists, so that num_proc can shard them.
        return [datasets.SplitGenerator(name=name, gen_kwargs={"units": units}) for name, units in splits.items()]

    def _generate_examples(self, units: list[Unit]) -> Iterator[tuple[str, dict[str, Any]]]:
        for unit in units:
            for row in self.examples(unit):
                yield row["id"], row
