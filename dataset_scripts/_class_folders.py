"""Collections of single-class folders, whose classes come from a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ._builder import RawBuilder, RawConfig, Unit, unit_columns
from ._files import first_names, is_picture, refuse_outside, stable_id, walk_files

__all__ = ["ClassFolders", "ClassFoldersConfig", "PictureSet", "plain_name"]


class PictureSet(NamedTuple):
    """Facts about a folder.

    Args:
        label: `"real"` or `"fake"`.
        family: see `detection_features`.
        manipulation: generator or method of the fakes.
        category: value of that column.
        aliases: other names of the folder.
    """

    label: str
    family: str | None = None
    manipulation: str | None = None
    category: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass
class ClassFoldersConfig(RawConfig):
    """The published sets, and the user's own folders.

    Args:
        real: names of additional folders with real images. fake: names of additional folders with fake images.
    """

    real: tuple[str, ...] = ()
    fake: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise a `ValueError` for a folder in both classes."""
        super().check()
        both = set(self.real) & set(self.fake)
        if both:
            raise ValueError(f"The folder(s) {first_names(sorted(both))} cannot be both real and fake.")


class ClassFolders(RawBuilder):
    """Base class of builders for such collections. Folders that are not in the table never get a class."""

    BUILDER_CONFIG_CLASS = ClassFoldersConfig
    PREFIX = ""  # first part of every id
    SETS: dict[str, PictureSet] = {}
    SPLIT = "test"

    @classmethod
    def set_of(cls, identity: str) -> str:
        """Return the folder's name in the table, which is the part of the id after the prefix."""
        return identity.split("/")[1]

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per image, set by set in the order of the table."""
        known = {plain_name(alias): name for name, known in self.SETS.items() for alias in (name, *known.aliases)}
        own = {
            name: PictureSet(label, manipulation=name)
            for label, names in (("real", self.config.real), ("fake", self.config.fake))
            for name in names
        }
        published = {name: self.SETS[known[plain_name(name)]] for name in own if plain_name(name) in known}
        contradicted = [name for name, said in published.items() if said.label != own[name].label]
        if contradicted:
            raise ValueError(f"{first_names(contradicted)}: published as the other class; remove the option.")
        folders: dict[str, Path] = {}
        unknown, stray = [], []
        for path in sorted(path for path in root.iterdir() if not path.name.startswith(".")):
            if not path.is_dir():
                if is_picture(path):
                    stray.append(path.name)
                continue
            refuse_outside(root, path)
            name = known.get(plain_name(path.name)) or (path.name if path.name in own else None)
            if name is None:
                unknown.append(path.name)
            elif name in folders:
                raise ValueError(f"{path} and {folders[name]} are both the set {name}; keep one of them.")
            else:
                folders[name] = path
        if unknown:
            self.report(
                "error",
                f"Ignored folders that are not a published set: {first_names(unknown)}. Set their class with "
                "real=... or fake=...",
            )
        if stray:
            self.report(
                "warning", f"{len(stray)} image(s) ignored because they are not in any set: {first_names(stray)}."
            )
        absent = [name for name in self.SETS if name not in folders]
        if absent:
            self.report("warning", f"{len(absent)} sets are missing: {first_names(absent, limit=len(absent))}.")
        units = []
        for name in sorted(folders, key=[*self.SETS, *own].index):
            units += self.picture_units(root, name, folders[name], self.SETS.get(name) or own[name])
        return {self.SPLIT: units}

    def picture_units(self, root: Path, name: str, folder: Path, known: PictureSet) -> list[Unit]:
        """Return the images of one set, sorted by path."""
        other: list[str] = []
        units = list(self._pictures(root, name, folder, known, other))
        if other:
            self.report("warning", f"{name}: {len(other)} files are not images: {first_names(other)}.")
        if not units:
            self.missing.append(f"{folder} (no images)")
        return units

    def _pictures(self, root: Path, name: str, folder: Path, known: PictureSet, other: list[str]) -> Iterator[Unit]:
        for path in walk_files(root, folder):
            if not is_picture(path):
                other.append(path.name)
                continue
            identity = stable_id(self.PREFIX, name, path.relative_to(folder).as_posix())
            columns = unit_columns(
                label=known.label,
                group_id=identity,
                manipulation=known.manipulation or name,
                family=known.family,
                category=known.category,
            )
            yield Unit(identity, str(path), columns)


def plain_name(name: str) -> str:
    """Normalise a folder name for comparison, without case and punctuation."""
    return "".join(character for character in name.casefold() if character.isalnum() or character == "+")
