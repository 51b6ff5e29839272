"""Files and folders: which files are images, reading JSON, digests, writing whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME

from deepfake_detectors.dataset_scripts._files import parse_json, read_text

__all__ = [
    "PICTURE_SUFFIXES",
    "Inputs",
    "expand_inputs",
    "parse_yaml",
    "picture_files",
    "read_json_object",
    "read_yaml",
    "weight_files",
    "weights_digest",
    "written_whole",
]

LARGEST_YAML, DEEPEST_YAML = 2**20, 32
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
    fields = parse_json(read_text(Path(path)), str(path))
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds a {type(fields).__name__}.")
    return fields


class _Reader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which a reader sees one only."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"{repeated[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: Any) -> Any:
    """Return what a YAML text holds.

    Args:
        text: at most `LARGEST_YAML` characters, nested at most `DEEPEST_YAML` levels, without anchors that are used
            again: a few lines of them stand for gigabytes.
        where: names it in the message of an error.

    Raises:
        ValueError: if it is not such a text.
    """
    if len(text) > LARGEST_YAML:
        raise ValueError(f"{where} has {len(text)} characters, allowed are {LARGEST_YAML}.")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"{where} uses the alias *{event.anchor}; write out what it stands for.")
            if depth > DEEPEST_YAML:
                raise ValueError(f"{where} is nested deeper than {DEEPEST_YAML} levels.")
        return yaml.load(text, Loader=_Reader)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:  # a date that does not exist, a number that is too long
        if str(where) in str(error):
            raise
        raise ValueError(f"{where} is not YAML: {error}") from error


def read_yaml(path: str | Path) -> Any:
    """Return what a YAML file holds; see `parse_yaml`.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not text, or not such YAML; the message names the file.
    """
    return parse_yaml(read_text(Path(path)), path)


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


@contextmanager
def written_whole(
    output: str | Path, *, replace: bool = False, remedy: str = "choose another `output`"
) -> Iterator[Path]:
    """Give a folder to write into; it becomes `output` when the block ends without an error.

    The folder is built beside `output`. A folder that is replaced becomes `.<name>.old` before the new one takes its
    place. Where a process is killed between the two, the next call for the same `output` puts the old one back.

    Args:
        output: a new or empty folder; with `replace` also one that holds files.
        replace: replace what `output` holds, all of it.
        remedy: what to do where `output` is taken, for the message.

    Raises:
        ValueError: if `output` exists and is not an empty folder, or is a file.
    """
    place = Path(output).resolve()
    _settle(place)
    if place.exists() and not (place.is_dir() and (replace or not any(place.iterdir()))):
        raise ValueError(f"{output} exists and is not an empty folder; {remedy}.")
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # mkdtemp makes it private
        if place.exists():
            place.rename(_old(place))
        unfinished.rename(place)
    finally:
        _settle(place)
        shutil.rmtree(unfinished, ignore_errors=True)


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def _settle(place: Path) -> None:
    """Undo a swap that ended between its two renames, finish one that ended behind them."""
    old = _old(place)
    if not old.is_dir():
        return
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()  # made by hand since; the old folder is the only copy
    if place.exists():
        shutil.rmtree(old)
    else:
        old.rename(place)
