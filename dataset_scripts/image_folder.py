"""Any folder of real and fake images, with an explicit polarity that is never guessed from the order of names.

A plain image-folder loader numbers classes by sorted name, so `ai` < `nature` and `fake` < `real` are inverted. Here
each config defines which folder names mean real and fake. Expected in the data folder:

    [<generator>/][<split>/]<real or fake folder>/[<generator or source>/...]/<image>
    [<mask folder>/]<image>             optional: white where the image of the same name was manipulated
    [manifest.csv]                        optional: columns file, label, group; compared with the files

With the config `table`, the images are listed in a CSV file instead and can be anywhere. Its columns are
`img_path,label`, as for AntifakePrompt, and optionally `split`, `group`, `manipulation` and `category`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from ._builder import RawBuilder, RawConfig, Unit, unit_columns
from ._files import (
    first_names,
    is_picture,
    read_csv,
    refuse_outside,
    require_same_size,
    stable_id,
    walk_files,
)

__all__ = ["CONVENTIONS", "RealFakeFolder", "RealFakeFolderConfig"]

CONVENTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # config -> names of the real and fake folders
    "real_fake": (("real",), ("fake",)),
    "0_real_1_fake": (("0_real",), ("1_fake",)),
    "nature_ai": (("nature",), ("ai",)),
    "source_target": (("source",), ("target",)),
    "authentic_tampered": (("au", "authentic"), ("tp", "tampered")),
    "custom": ((), ()),
}
TABLE = "table"  # the config that reads a table
TABLE_COLUMNS = ("img_path", "label")
WORDS = {"real": "real", "fake": "fake", "yes": "real", "no": "fake"}  # AntifakePrompt asks whether a photo is real
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
MANIFEST = "manifest.csv"
VERSION = datasets.Version("1.0.0")
OTHER_TEXTS = frozenset({".md", ".txt", ".pdf", ".json", ".csv", ""})  # README files and licences next to the images


@dataclass
class RealFakeFolderConfig(RawConfig):
    """Definition of the real and fake folders.

    Args:
        real, fake: folder names, ignoring case. Set by the named configs; `custom` needs both.
        masks: folder with the masks of fake images, each with the same stem as its image; empty for none.
        default_split: the split of images that are not below a folder named after a split.
        prefix: first part of every id; use a different one for each collection.
        table: name of a table in the folder that lists the images, instead of folder names; `data_dir` may be the
            table itself. Paths are relative to its folder, or absolute. Labels are real, fake, yes (real) or no
            (fake).
        number_real: the number that means real if labels are 0 and 1, `"0"` or `"1"`; empty if they are words.
    """

    real: tuple[str, ...] | str = ()
    fake: tuple[str, ...] | str = ()
    masks: str = ""
    default_split: str = "train"
    prefix: str = "image_folder"
    table: str = ""
    number_real: str = ""

    def check(self) -> None:
        """Raise a `ValueError` if the polarity is missing or contradictory."""
        super().check()
        if self.number_real not in ("", "0", "1"):
            raise ValueError(f"number_real is {self.number_real!r}, expected 0 or 1.")
        if not self.table and (not self.real_names or not self.fake_names):
            raise ValueError(
                f"The polarity is missing: choose one of the configs {', '.join((*CONVENTIONS, TABLE))}; 'custom' "
                "needs the folder names of both classes, real=... and fake=..."
            )
        both = self.real_names & self.fake_names
        if both:
            raise ValueError(f"The folder name(s) {first_names(sorted(both))} cannot be both real and fake.")
        if self.default_split not in SPLIT_NAMES.values():
            raise ValueError(f"default_split is {self.default_split!r}, expected train, validation or test.")

    @property
    def real_names(self) -> frozenset[str]:
        return _names(self.real)

    @property
    def fake_names(self) -> frozenset[str]:
        return _names(self.fake)


def _names(given: tuple[str, ...] | str) -> frozenset[str]:
    return frozenset(name.casefold() for name in ((given,) if isinstance(given, str) else given) if name)


class RealFakeFolder(RawBuilder):
    """Real and fake images in folders; the config defines the polarity, without a default.

    Generators are named by the folder above the class (as in GenImage and CNNDetection) or otherwise by the folder
    below it. Pass `masks="masks"` if the folder has masks.

    Raises:
        FileNotFoundError: for a missing folder or mask.
        ValueError: for an image below both a real and a fake folder, a class without images, a label that contradicts
            the manifest, an image that cannot be decoded, or a mask of the wrong size.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = RealFakeFolderConfig
    BUILDER_CONFIGS = [
        RealFakeFolderConfig(name=name, version=VERSION, real=real, fake=fake, description=f"{real} against {fake}")
        for name, (real, fake) in CONVENTIONS.items()
    ]
    BUILDER_CONFIGS.append(
        RealFakeFolderConfig(name=TABLE, version=VERSION, table="pictures.csv", description="img_path,label")
    )
    SOURCE_SUFFIXES = (".csv",)
    NAME = "real/fake image folder"
    TERMS = "The terms of the image sources; see the files next to them."
    LAYOUT = "[<generator>/][<split>/]<real or fake folder>/[<generator>/...]/<image>"
    RESEARCH_ONLY = False  # for this builder, the images are the user's own
    REMEDY = "Point data_dir at the folder above the real and fake folders, and choose the config for their names."

    def inspect(self, root: Path) -> dict[str, list[Unit]]:
        """Inspect like the base class; `root` may be the table itself."""
        root = Path(root)
        if self.config.table and root.is_file():
            self.config.table, root = root.name, root.parent
        return super().inspect(root)

    def has_masks(self) -> bool:
        """Return whether `masks` is set."""
        return bool(self.config.masks)

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per image, sorted by path, or in the order of the table."""
        if self.config.table:
            return self._listed(root)
        masks = self._find_masks(root)
        manifest = _read_manifest(root, self.report)
        splits: dict[str, list[Unit]] = defaultdict(list)
        ignored: list[str] = []
        seen: set[str] = set()
        for path in walk_files(root, root):
            parts = path.relative_to(root).parts
            if self.config.masks and parts[0] == self.config.masks:
                continue
            label = self._label(path, parts)
            if label is None or not is_picture(path):
                if is_picture(path) or path.suffix.lower() not in OTHER_TEXTS:
                    ignored.append("/".join(parts))
                continue
            split, unit = self._unit(path, parts, label, masks)
            name = stable_id(*parts)
            if manifest:
                self._apply_manifest(manifest, name, path, unit)
            seen.add(name)
            splits[split].append(unit)
        if ignored:
            self.report(
                "warning",
                f"{len(ignored)} file(s) ignored because they are neither real nor fake: {first_names(ignored)}.",
            )
        self.missing += sorted(name for name, row in manifest.items() if name not in seen and row["label"] in _LABELS)
        self._require_both(root, splits)
        unused = sorted(
            {mask for found in masks.values() for mask in found}
            - {unit.columns.get("mask") for units in splits.values() for unit in units}
        )
        if unused:
            self.report("warning", f"{len(unused)} mask(s) without an image: {first_names(unused)}.")
        return splits

    def _listed(self, root: Path) -> dict[str, list[Unit]]:
        """Return the images of the table."""
        if self.config.masks:
            raise ValueError("masks are for images in folders, not for a table. Leave out the option.")
        table = root / self.config.table
        if not table.is_file():
            raise FileNotFoundError(f"{table} is missing: pass the table as data_dir. {self.REMEDY}")
        columns, rows = read_csv(table, fill=True)
        if not set(TABLE_COLUMNS) <= set(columns):
            raise ValueError(f"{table} has the columns {columns}, expected {', '.join(TABLE_COLUMNS)}.")
        paths = [root / row["img_path"] for _, row in rows]
        inside = all(path.is_relative_to(root) and ".." not in path.parts for path in paths)
        # Ids must not contain the location of images on this machine.
        base = root if inside or not paths else Path(os.path.commonpath([path.parent.absolute() for path in paths]))
        splits: dict[str, list[Unit]] = defaultdict(list)
        for (where, row), path in zip(rows, paths, strict=True):
            if not row["img_path"]:
                raise ValueError(f"{where} has no img_path. Complete or remove the line.")
            if not path.is_file():
                self.missing.append(str(path))
                continue
            split = row.get("split") or self.config.default_split
            if split.casefold() not in SPLIT_NAMES:
                raise ValueError(f"{where} has the split {split!r}, expected one of {', '.join(SPLIT_NAMES)}.")
            name = stable_id(self.config.prefix, *Path(os.path.relpath(path.absolute(), base)).parts)
            columns_of = unit_columns(
                label=self._listed_label(where, row["label"]),
                group_id=stable_id(self.config.prefix, row["group"]) if row.get("group") else name,
                manipulation=row.get("manipulation") or None,
                category=row.get("category") or None,
            )
            splits[SPLIT_NAMES[split.casefold()]].append(Unit(name, str(path), columns_of))
        return splits

    def _listed_label(self, where: str, given: str) -> str:
        word = given.strip().casefold()
        if word in ("0", "1") and self.config.number_real:
            return "real" if word == self.config.number_real else "fake"
        if word not in WORDS:
            hint = " Numbers are ambiguous: set number_real." if word in ("0", "1") else ""
            raise ValueError(f"{where}: the label is {given!r}, expected one of {', '.join(WORDS)}.{hint}")
        return WORDS[word]

    def _label(self, path: Path, parts: tuple[str, ...]) -> str | None:
        folders = [part.casefold() for part in parts[:-1]]
        hits = {"real": self.config.real_names & set(folders), "fake": self.config.fake_names & set(folders)}
        if hits["real"] and hits["fake"]:
            raise ValueError(
                f"{path} is below both a real folder ({first_names(hits['real'])}) and a fake one "
                f"({first_names(hits['fake'])}). Point data_dir at a folder with one level of classes."
            )
        return next((label for label, names in hits.items() if names), None)

    def _unit(self, path: Path, parts: tuple[str, ...], label: str, masks: dict[str, list[str]]) -> tuple[str, Unit]:
        folders = parts[:-1]
        names = self.config.real_names | self.config.fake_names
        level = next(number for number, part in enumerate(folders) if part.casefold() in names)
        split, above = self._split(folders[:level])
        generator, category = self._generator(above, folders[level + 1 :], label)
        name = stable_id(self.config.prefix, *parts)
        columns = unit_columns(
            label=label,
            group_id=name,  # shared sources are unknown without a manifest
            manipulation=generator,
            category=category,
        )
        if self.config.masks:
            columns["mask"] = self._mask(path, label, masks)
        return split, Unit(name, str(path), columns)

    def _split(self, folders: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """Return the split, and the folders above the class that are not a split."""
        named = [part for part in folders if part.casefold() in SPLIT_NAMES]
        split = SPLIT_NAMES[named[-1].casefold()] if named else self.config.default_split
        return split, tuple(part for part in folders if part not in named)

    def _generator(self, above: tuple[str, ...], below: tuple[str, ...], label: str) -> tuple[str | None, str | None]:
        """Return generator and category from the folders above and below the class folder."""
        if above:
            generator, rest = above[0], above[1:] + below
        elif label == "fake" and below:
            generator, rest = below[0], below[1:]
        else:
            generator, rest = None, below
        return generator, stable_id(*rest) if rest else None

    def _find_masks(self, root: Path) -> dict[str, list[str]]:
        """Return the masks for each stem."""
        if not self.config.masks:
            for name in ("masks", "mask"):
                if (root / name).is_dir():
                    self.report("warning", f"{name}/ is ignored; pass masks={name!r} to add its masks to the rows.")
            return {}
        folder = root / self.config.masks
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is missing, but is required by masks={self.config.masks!r}.")
        masks: dict[str, list[str]] = defaultdict(list)
        for path in walk_files(root, folder):
            if is_picture(path):
                masks[stable_id(path.stem)].append(str(path))
        return masks

    def _mask(self, path: Path, label: str, masks: dict[str, list[str]]) -> str | None:
        if label == "real":
            return None
        found = masks.get(stable_id(path.stem), [])
        if len(found) > 1:  # if several generators share a stem, the mask folder must have the same subfolders
            found = [mask for mask in found if Path(mask).parent.name == path.parent.name]
        if len(found) != 1:
            raise FileNotFoundError(f"{path} has {len(found)} masks in {self.config.masks}/, expected one.")
        return found[0]

    def _apply_manifest(self, manifest: dict[str, dict[str, str]], name: str, path: Path, unit: Unit) -> None:
        row = manifest.get(name)
        if row is None:
            self.report("error", f"{path} is not listed in {MANIFEST}.")
            return
        if row["label"] != unit.columns["label"]:
            raise ValueError(
                f"{path} is in a folder of {unit.columns['label']} images, but {MANIFEST} labels it "
                f"{row['label']!r}. Correct the wrong one."
            )
        if row.get("group"):
            unit.columns["group_id"] = stable_id(self.config.prefix, row["group"])

    def _require_both(self, root: Path, splits: dict[str, list[Unit]]) -> None:
        present = {unit.columns["label"] for units in splits.values() for unit in units}
        if present == {"real", "fake"}:
            return
        folders = {folder.name.casefold() for folder in root.rglob("*") if folder.is_dir()}
        fitting = [name for name, (real, fake) in CONVENTIONS.items() if folders & set(real) and folders & set(fake)]
        hint = f" Its folder names match the config {' or '.join(fitting)}." if fitting else ""
        lacking = [label for label in ("real", "fake") if label not in present]
        raise FileNotFoundError(
            f"{root} does not contain {' or '.join(lacking)} images below folders named "
            f"{', '.join(sorted(self.config.real_names))} (real) and {', '.join(sorted(self.config.fake_names))} "
            f"(fake).{hint} {self.REMEDY}"
        )

    def examples(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """The picture, and its mask after comparing their sizes."""
        picture, mask = self.check_picture(unit.path), unit.columns.get("mask")
        image = self.image_cell(unit.path, picture)
        row = {"id": unit.id, "image": image, "file_format": picture.format, **unit.columns}
        if mask is not None:
            drawn = self.check_picture(mask)
            require_same_size(drawn, picture, mask)
            row["mask"] = self.image_cell(mask, drawn)
        yield row


_LABELS = frozenset({"real", "fake"})


def _read_manifest(root: Path, report: Callable[[str, str], None]) -> dict[str, dict[str, str]]:
    path = root / MANIFEST
    if not path.is_file():
        return {}
    refuse_outside(root, path)
    columns, rows = read_csv(path, fill=True)
    if not {"file", "label"} <= set(columns):
        report(
            "warning",
            f"{path} is ignored: its columns are {first_names(map(repr, columns), limit=10)}, expected file, label "
            "and optionally group, separated by commas.",
        )
        return {}  # another table with a common name
    table: dict[str, dict[str, str]] = {}
    for where, row in rows:
        if not row["file"] or not row["label"]:
            raise ValueError(f"{where} lacks file or label. Complete or remove the line.")
        name = stable_id(row["file"])
        if name in table:
            raise ValueError(f"{where} has {row['file']} a second time. Keep one of the lines.")
        table[name] = row
    return table
