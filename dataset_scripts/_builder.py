"""Code shared by all dataset builders: the schema, grouping by shared source video, and checks before building.

Imports only `datasets`, neighbours and the standard library, so that a builder also works as a loading script.
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
CLASS_NAMES = ["real", "fake"]  # labels 0 and 1, regardless of the source data


def detection_features(mask: bool = False, dialogue: bool = False) -> datasets.Features:
    """Return the schema used by every builder of this package.

    Args:
        mask: whether rows have a manipulation mask.
        dialogue: whether rows have a question with answers, also as chat `messages`.

    Returns:
        Features. `video_id` is `<dataset>/<method>/<name>`, because bare names collide between methods; `group_id` is
        the connected component over shared source material; splits must keep groups together.
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
        # detected from the content: file names can be wrong, and a format that depends on the class is a shortcut
        "file_format": text,
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
    """Return the columns of a unit in the schema of `detection_features`; for real ones `manipulation` is `real`."""
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
    """Return the connected components of a graph.

    Args:
        links: sequences of nodes that belong together; a sequence with one node adds just that node.

    Returns:
        For every node the smallest node of its component, independent of the order of `links`.
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
    """Split rows so that no group is in both parts.

    Args:
        group_ids: the group of each row.
        fraction: share of rows for the second part, in (0, 1). Groups are drawn until this share is reached.
        seed: the same seed and groups give the same split, independent of the order of rows.

    Returns:
        Ascending row indices of the first part (for training) and of the second part (for validation).

    Raises:
        ValueError: if `fraction` is out of range, or if there are fewer than two groups.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"The validation fraction is {fraction}, expected a share between 0 and 1 (exclusive).")
    rows: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(group_ids):
        rows[group].append(index)
    if len(rows) < 2:
        raise ValueError(
            f"{len(group_ids)} rows in {len(rows)} group(s) cannot be split: images in a group share source videos "
            "and must stay together. Use at least two groups, or a separate validation split."
        )
    order = sorted(rows)
    random.Random(seed).shuffle(order)
    second: list[int] = []
    for group in order[:-1]:  # at least one group stays in the first part
        if len(second) >= fraction * len(group_ids):
            break
        second.extend(rows[group])
    chosen = set(second)
    return [index for index in range(len(group_ids)) if index not in chosen], sorted(second)


@dataclass(frozen=True)
class Finding:
    """A finding about a dataset, from a builder, `check_dataset` or `lint_dataset`.

    Args:
        level: for raw files, `error` if they contradict the official list or count; for lint, `error` if a detector
            could solve all or part of the dataset without looking at the forgery, or if scores would be wrong.
            `warning` and `note` are less severe, `ok` is for checks that passed.
        message: a sentence for the user.
        code: stable name of the check.
        split: the split concerned, or `None`.
        details: numbers and example ids; JSON-serialisable.
    """

    level: str
    message: str
    code: str = "raw-files"
    split: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as in `lint.json`."""
        return asdict(self)


class Unit(NamedTuple):
    """One item of a shard: an image, or the frames of one video.

    Args:
        id: unique in the dataset and the same on every machine: without absolute paths, Unicode in NFC.
        path: the file or folder with the pixels.
        columns: the columns that are the same for all of its rows.
        frames: file names or frame numbers; empty for a single image.
        masks: the folder or clip with the masks of the frames; empty without masks.
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
    """Fields shared by all configs.

    Args:
        allow_missing: build the existing files even if files from the official list are missing. Missing files are
            still logged and listed by `check`.
        max_pixels: largest width times height to decode; see `open_image`.
    """

    allow_missing: bool = False
    max_pixels: int = MAX_PIXELS

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels is {self.max_pixels}, expected 1 or more.")


class RawBuilder(datasets.GeneratorBasedBuilder):
    """Base class of the builders: finds the units of each split, refuses ambiguous data and records findings.

    Subclasses set the class attributes and implement `units`, and also `examples` if a unit is not a single image.
    """

    NAME = ""
    TERMS = ""
    LAYOUT = ""
    REMEDY = ""
    HOMEPAGE = ""
    LAYOUT_VERIFIED = True  # False if layout or counts come from second-hand sources; `info` and `check` say so
    RESEARCH_ONLY = True  # False only if the terms allow more than non-commercial research, or are the user's own
    UNIT_NAME = "images"
    SOURCE_SUFFIXES: tuple[str, ...] = ()  # suffixes of files that can be passed as `data_dir` instead of a folder
    BUILDER_CONFIG_CLASS = RawConfig
    log_findings = True
    embed_files = False  # True: rows hold the content of picture files, which was read to check them, not their paths
    decode_listed = True  # False where `units` must not decode: lint measures every picture, also beside broken ones
    findings: list[Finding]
    kept: dict[str, list[Unit]] | None = None  # set by `keep_splits`
    missing: list[str]
    ignored: list[str]  # files found by `units` that are not used

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return the units of each split, in the dataset's own order if it has one."""
        raise NotImplementedError

    @classmethod
    def set_of(cls, identity: str) -> str | None:
        """Return the single-class set of the row with this id; `None` if the dataset does not consist of such sets."""
        return None

    def has_masks(self) -> bool:
        """Whether rows of this config have a mask."""
        return False

    def has_dialogue(self) -> bool:
        """Whether rows of this config have a question and answers."""
        return False

    def official_counts(self) -> dict[str, dict[str, int]]:
        """Return the published number of units per split and class for this config; a difference is an error."""
        return {}

    def likely_counts(self) -> dict[str, dict[str, int]]:
        """Return counts from uncertain sources; a difference is only a warning."""
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
        """Record a finding for `check`, and log it if it is more than a note."""
        self.findings.append(Finding(level, message))
        if self.log_findings and level != "note":
            logger.warning("%s: %s", self.NAME, message)

    def inspect(self, root: Path) -> dict[str, list[Unit]]:
        """Return the units of each split after all checks that do not need decoding; fill `findings`.

        Raises:
            FileNotFoundError: if the folder or something in it is missing.
            ValueError: for duplicate ids, an empty result, or data that a subclass refuses.
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
                f"{root} does not contain any files of {self.NAME} for this config. {absent}{self.REMEDY}"
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
            text = f"{len(shared)} group(s) of related material are in several splits: {first_names(shared)}."
            self.report("note", text)

    def _compare_counts(self, splits: dict[str, list[Unit]], counts: dict[str, dict[str, int]], level: str) -> None:
        for split, classes in counts.items():
            found = Counter(unit.columns["label"] for unit in splits.get(split, []))
            for label, expected in classes.items():
                if found[label] != expected:
                    self.report(
                        level, f"{split}: {found[label]} {label} {self.UNIT_NAME}, but {expected} were published."
                    )

    def _info(self) -> datasets.DatasetInfo:
        self.config.check()  # checked here, because options are set after the config's __post_init__
        return datasets.DatasetInfo(
            description=inspect.getdoc(type(self)) or "",
            features=detection_features(mask=self.has_masks(), dialogue=self.has_dialogue()),
            homepage=self.HOMEPAGE,
            license=self.TERMS,
            version=self.config.version,
        )

    def find_splits(self) -> dict[str, list[Unit]]:
        """Return the units of each split to build, without decoding.

        Raises:
            FileNotFoundError: for listed files that are missing, unless `allow_missing` is set.
            ValueError: as for `inspect`, or if `data_dir` is not set.
        """
        if self.config.data_dir is None:
            raise ValueError(f"{self.NAME} cannot be downloaded by a builder, and data_dir is not set. {self.REMEDY}")
        splits = self.inspect(Path(self.config.data_dir))
        if self.missing and not self.config.allow_missing:
            raise FileNotFoundError(
                f"{len(self.missing)} listed file(s) of {self.NAME} are missing: {first_names(self.missing)}. "
                "Download them, or pass allow_missing=True to build the rest."
            )
        return splits

    def keep_splits(self, splits: dict[str, list[Unit]]) -> None:
        """Restrict the build to these splits from `find_splits`, without reading the raw files again."""
        self.kept = splits
        # the other splits are not expected, even if a cached build of the whole dataset has them
        self.info.splits = None

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        splits = self.find_splits() if self.kept is None else self.kept
        # Lists, so that num_proc can split them.
        return [datasets.SplitGenerator(name=name, gen_kwargs={"units": units}) for name, units in splits.items()]

    def _generate_examples(self, units: list[Unit]) -> Iterator[tuple[str, dict[str, Any]]]:
        for unit in units:
            for row in self.examples(unit):
                yield row["id"], row
