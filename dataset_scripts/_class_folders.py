"""Collections of folders that are of one class each, which only a table can tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ._builder import RawBuilder, RawConfig, Unit, unit_columns
from ._files import first_names, is_picture, refuse_outside, stable_id, walk_files

__all__ = ["ClassFolders", "ClassFoldersConfig", "PictureSet", "plain_name"]


class PictureSet(NamedTuple):
    """What is known of a folder.

    Args:
        label: `"real"` or `"fake"`.
        family: see `detection_features`.
        manipulation: what made the fakes.
        category: value of that column.
        aliases: further names of the folder.
    """

    label: str
    family: str | None = None
    manipulation: str | None = None
    category: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass
class ClassFoldersConfig(RawConfig):
    """The published sets, and folders of one's own.

    Args:
        real: names of further folders with real images.
        fake: names of further folders with fake images.
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
    """Base of the builders over such collections. A folder that no table knows is never given a class."""

    BUILDER_CONFIG_CLASS = ClassFoldersConfig
    PREFIX = ""  # first part of every id
    SETS: dict[str, PictureSet] = {}
    SPLIT = "test"

    @classmethod
    def set_of(cls, identity: str) -> str:
        """The folder, by its name in the table: the part of the id behind the prefix."""
        return identity.split("/")[1]

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """One unit per image, set by set in the order of the table."""
        known = {plain_name(alias): name for name, known in self.SETS.items() for alias in (name, *known.aliases)}
        own = {
            name: PictureSet(label, manipulation=name)
            for label, names in (("real", self.config.real), ("fake", self.config.fake))
            for name in names
        }
        published = {name: self.SETS[known[plain_name(name)]] for name in own if plain_name(name) in known}
        contradicted = [name for name, said in published.items() if said.label != own[name].label]
        if contradicted:
            raise ValueError(f"{first_names(contradicted)}: published as the other class; take the option away.")
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
                f"Folders that are no published set, not read: {first_names(unknown)}. State their class: real=... or "
                "fake=...",
            )
        if stray:
            self.report("warning", f"{len(stray)} image(s) in no set, not read: {first_names(stray)}.")
        absent = [name for name in self.SETS if name not in folders]
        if absent:
            self.report("warning", f"{len(absent)} sets are not there: {first_names(absent, limit=len(absent))}.")
        units = []
        for name in sorted(folders, key=[*self.SETS, *own].index):
            units += self.picture_units(root, name, folders[name], self.SETS.get(name) or own[name])
        return {self.SPLIT: units}

    def picture_units(self, root: Path, name: str, folder: Path, known: PictureSet) -> list[Unit]:
        """The images of one set, sorted by path."""
        other: list[str] = []
        units = list(self._pictures(root, name, folder, known, other))
        if other:
            self.report("warning", f"{name}: {len(other)} files are no images: {first_names(other)}.")
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
    """A name without case and punctuation, by which folders are compared."""
    return "".join(character for character in name.casefold() if character.isalnum() or character == "+")
