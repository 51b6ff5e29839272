"""Locations of the files of DD-VQA: in the folder layout of this package, or in a clone of M2F2-Det's repository.

A clone has `utils/DDVQA_images/{c40,c23}.zip`, which are read without unpacking (or unpacked next to them, as the
official scripts expect), `utils/DDVQA_split/<level>/*.json` and `utils/DDVQA_eval/<level>/test.jsonl`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ._archives import list_members, read_member
from ._builder import INSIDE
from ._files import is_picture, list_files, refuse_outside, require_folder

__all__ = ["Layout", "Picture", "find_layout"]

JUDGEMENTS = "train_DDVQA_format_judge_only.json"
CONVERSATIONS = "train_DDVQA_format.json"


class Picture(NamedTuple):
    """An image file, or a member of an archive.

    Args:
        archive: the zip that contains it; `None` for a file.
        name: path of the file, or name of the member.
    """

    archive: Path | None
    name: str

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name.replace("\\", "/")).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    def __str__(self) -> str:
        return self.name if self.archive is None else f"{self.archive}{INSIDE}{self.name}"

    def read(self) -> bytes:
        """Return the content of the file."""
        return Path(self.name).read_bytes() if self.archive is None else read_member(self.archive, self.name)


class Layout(NamedTuple):
    """The files of one copy.

    Args:
        root: the given folder; all images must be inside it.
        images: the folder with `images_<level>/<split>/`, or with `<level>.zip` and `<level>/<split>/` in a clone.
        judgements: real/fake conversations on the training images.
        conversations: real/fake and explanation conversations on them; not in every copy.
        explanations: questions and reference answers on the test images.
        annotations: the folder with the questions and answers as collected; not in a clone.
        prefix: prefix before the level in the names of the image folders.
    """

    root: Path
    images: Path
    judgements: Path
    conversations: Path
    explanations: Path
    annotations: Path
    prefix: str

    def holds(self, level: str, split: str) -> bool:
        """Return whether the folder or archive of these images exists."""
        return self._folder(level, split).is_dir() or self._archive(level) is not None

    def place(self, level: str, split: str) -> str:
        """Return the location of these images, for messages."""
        archive = self._archive(level)
        folder = self._folder(level, split)
        return f"{archive}{INSIDE}{split}" if archive is not None and not folder.is_dir() else str(folder)

    def list(self, level: str, split: str, remedy: str) -> tuple[list[Picture], list[str]]:
        """Return the images of a split in a stable order, and other members of an archive.

        Raises:
            FileNotFoundError: if neither the folder nor the archive exists.
            ValueError: for an archive that cannot be read, or a link that points outside the root.
        """
        folder, archive = self._folder(level, split), self._archive(level)
        if archive is None or folder.is_dir():
            require_folder(folder, f"the {level} images of the {split} split", remedy)
            files = list_files(folder)
            refuse_outside(self.root, folder)
            for path in files:
                if path.is_symlink():  # else it lies where its folder does
                    refuse_outside(self.root, path)
            return [Picture(None, str(path)) for path in files], []
        refuse_outside(self.root, archive)
        found, elsewhere = [], []
        for name in sorted(list_members(archive)):
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if parts[-1].startswith(".") or parts[0] == "__MACOSX":  # written by file managers
                continue
            if split in parts[-2:-1]:
                found.append(Picture(archive, name))
            elif not {"train", "test"} & set(parts[-2:-1]) and is_picture(Path(parts[-1])):
                elsewhere.append(f"{archive}{INSIDE}{name}")
        return found, elsewhere

    def _folder(self, level: str, split: str) -> Path:
        return self.images / f"{self.prefix}{level}" / split

    def _archive(self, level: str) -> Path | None:
        path = self.images / f"{level}.zip"
        return path if not self.prefix and path.is_file() else None


def find_layout(root: Path) -> Layout:
    """Return the file locations of a copy in either layout, without checking that they exist."""
    for base in (root / "utils", root):
        if (base / "DDVQA_images").is_dir():
            lists = base / "DDVQA_split" / "c40"
            tests = (base / "DDVQA_eval" / "c40" / "test.jsonl", lists / "test.jsonl")
            return Layout(
                root=root,
                images=base / "DDVQA_images",
                judgements=lists / JUDGEMENTS,
                conversations=lists / CONVERSATIONS,
                explanations=next((path for path in tests if path.is_file()), tests[0]),
                annotations=root / "annotations" / "train_set",
                prefix="",
            )
    return Layout(
        root=root,
        images=root,
        judgements=root / "splits" / JUDGEMENTS,
        conversations=root / "splits" / CONVERSATIONS,
        explanations=root / "splits" / "test_explanation.jsonl",
        annotations=root / "annotations" / "train_set",
        prefix="images_",
    )
