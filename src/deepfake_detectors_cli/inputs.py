"""From what the user names - files, folders, globs, URLs - to a list of pictures."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PICTURE_SUFFIXES", "Inputs", "expand_inputs"]

# Only for folders: a file that is named is read whatever it is called.
PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .avif .avifs .heic .heif .jp2 .j2k .ppm .pgm "
    ".pbm .pnm .tga .ico".split()
)


@dataclass
class Inputs:
    """What was found.

    Attributes:
        pictures: paths and URLs in the order given; folders sorted by name.
        faults: input -> why it names no picture.
        skipped: number of files in folders whose names are not those of pictures.
    """

    pictures: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    skipped: int = 0


def expand_inputs(names: Sequence[str], recursive: bool = False) -> Inputs:
    """Expand folders and globs.

    Args:
        names: files, folders, glob patterns (`**` for any depth) and http(s) URLs.
        recursive: also look into the folders of a folder.

    A name that is no folder and matches no pattern is kept as a picture, so that reading it gives the error.
    """
    found = Inputs()
    for name in names:
        path = Path(name)
        if path.is_dir():
            _add_folder(path, name, recursive, found)
        elif glob.has_magic(name) and "://" not in name and not path.exists():
            matches = sorted(filter(os.path.isfile, glob.glob(name, recursive=True)))  # noqa: PTH207 - Path has no absolute globs
            found.pictures += matches
            if not matches:
                found.faults[name] = f"{name}: no file matches this pattern."
        else:
            found.pictures.append(name)
    return found


def _add_folder(folder: Path, name: str, recursive: bool, found: Inputs) -> None:
    children = folder.rglob("*") if recursive else folder.iterdir()
    files = sorted(child for child in children if child.is_file() and not child.name.startswith("."))
    pictures = [str(file) for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    found.pictures += pictures
    found.skipped += len(files) - len(pictures)
    if not pictures:
        deeper = "" if recursive else " (--recursive also looks into its folders)"
        found.faults[name] = f"{name}: this folder holds no pictures{deeper}."
