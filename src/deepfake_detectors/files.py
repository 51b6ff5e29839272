"""Files and folders: which files are images, reading JSON, digests."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME

__all__ = [
    "PICTURE_SUFFIXES",
    "Inputs",
    "expand_inputs",
    "picture_files",
    "read_json_object",
    "weight_files",
    "weights_digest",
]

# Only for folders: a file that is named is read whatever it is called.
PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .avif .avifs .heic .heif .jp2 .j2k .ppm .pgm "
    ".pbm .pnm .tga .ico".split()
)
# Index of shards -> what weights are called where there is none.
WEIGHTS = {SAFE_WEIGHTS_INDEX_NAME: "*.safetensors", WEIGHTS_INDEX_NAME: "pytorch_model*.bin"}
BLOCK = 1 << 20  # bytes read at a time


@dataclass
class Inputs:
    """What `expand_inputs` found.

    Attributes:
        pictures: paths and URLs in the order given; folders sorted by name.
        faults: input -> why it names no picture.
        skipped: number of files in folders whose names are not those of pictures.
    """

    pictures: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    skipped: int = 0


def expand_inputs(
    names: Sequence[str], recursive: bool = False, suffixes: Collection[str] = PICTURE_SUFFIXES
) -> Inputs:
    """Expand folders and globs into images, or into other files.

    A name that is not a folder and not a pattern is kept as an image, so that reading it gives the error.

    Args:
        names: files, folders, glob patterns (`**` for any depth) and http(s) URLs.
        recursive: also look into the folders of a folder.
        suffixes: of the files that are taken from folders.
    """
    found = Inputs()
    for name in names:
        path = Path(name)
        if path.is_dir():
            pictures, skipped = picture_files(path, recursive, suffixes)
            found.pictures += map(str, pictures)
            found.skipped += skipped
            if not pictures:
                deeper = "" if recursive else " (`recursive` also looks into its folders)"
                found.faults[name] = f"{name}: this folder holds no pictures{deeper}."
        elif glob.has_magic(name) and "://" not in name and not path.exists():
            matches = sorted(filter(os.path.isfile, glob.glob(name, recursive=True)))  # noqa: PTH207 - Path has no absolute globs
            found.pictures += matches
            if not matches:
                found.faults[name] = f"{name}: no file matches this pattern."
        else:
            found.pictures.append(name)
    return found


def picture_files(
    folder: Path, recursive: bool = False, suffixes: Collection[str] = PICTURE_SUFFIXES
) -> tuple[list[Path], int]:
    """Return the images of a folder, sorted, and how many other files lie beside them.

    Args:
        folder: where to look; hidden files are passed over.
        recursive: also look into its folders.
        suffixes: in lower case, of the files that are images.
    """
    children = folder.rglob("*") if recursive else folder.iterdir()
    files = sorted(child for child in children if child.is_file() and not child.name.startswith("."))
    pictures = [file for file in files if file.suffix.lower() in suffixes]
    return pictures, len(files) - len(pictures)


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not JSON, or not an object; the message names the file.
    """
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds a {type(fields).__name__}.")
    return fields


def weight_files(folder: str | Path) -> list[Path]:
    """Return the weight files of a folder: those its index lists, else those that are named as weights are.

    Returns:
        Sorted by name; safetensors where there are any, else pickles; empty where there are neither. Hub ids and
        missing folders have none.

    Raises:
        ValueError: for an index that is damaged, or that lists a path outside the folder or a file that is missing.
    """
    folder = Path(folder)
    for index, pattern in WEIGHTS.items():
        if (folder / index).is_file():
            return _listed_files(folder / index)
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def _listed_files(index: Path) -> list[Path]:
    names = read_json_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{index} has no weight_map of weights to file names.")
    files = []
    for name in sorted(set(names.values())):
        # As written, not as resolved: a cache of the Hub has links to outside in place of its files.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{index} lists {name!r}; paths must stay inside the folder.")
        if not (index.parent / name).is_file():
            raise ValueError(f"{index} lists {name!r}, which is missing.")
        files.append(index.parent / name)
    return files


def weights_digest(source: str | Path) -> str | None:
    """Return the SHA-256 over the contents of a folder's safetensors files, sorted by name; `None` without any."""
    files = sorted(path for path in Path(source).glob("*.safetensors") if path.is_file())
    digest = sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest.hexdigest() if files else None
