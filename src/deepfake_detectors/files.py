"""Files and folders: finding images, reading JSON and YAML, digests."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

import yaml
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME

from deepfake_detectors.dataset_scripts._files import parse_json, read_csv, read_text

__all__ = [
    "PICTURE_SUFFIXES",
    "Inputs",
    "Walk",
    "expand_inputs",
    "parse_yaml",
    "read_json_object",
    "read_turns",
    "read_yaml",
    "walk_folder",
    "weight_files",
    "weights_digest",
]

LARGEST_YAML, DEEPEST_YAML = 2**20, 32
# Only for folders: a file that is given directly is read regardless of its name.
PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .avif .avifs .heic .heif .jp2 .j2k .ppm .pgm "
    ".pbm .pnm .tga".split()
)
# Index of shards -> file name of unsharded weights.
WEIGHTS = {SAFE_WEIGHTS_INDEX_NAME: "*.safetensors", WEIGHTS_INDEX_NAME: "pytorch_model*.bin"}
TABLE_SUFFIX, PATH_COLUMN = ".csv", "img_path"  # for tables of images, as in AntifakePrompt
BLOCK = 1 << 20  # bytes read at a time


@dataclass
class Inputs:
    """Result of `expand_inputs`.

    Attributes:
        pictures: paths and URLs in the order given; folders sorted by name.
        faults: input -> reason why it is not an image.
        skipped: number of files in folders without an image extension.
    """

    pictures: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    skipped: int = 0


@dataclass
class Walk:
    """Result of `walk_folder`.

    Attributes:
        files: files with the requested suffixes, each real file once, sorted.
        others: number of files with other suffixes.
        faults: path -> reason why it was left out: broken links, pipes, unreadable folders.
    """

    files: list[Path] = field(default_factory=list)
    others: int = 0
    faults: dict[str, str] = field(default_factory=dict)


def walk_folder(
    folder: str | Path, recursive: bool = False, suffixes: Collection[str] | None = PICTURE_SUFFIXES
) -> Walk:
    """Find the files in a folder; the library uses only this function for that.

    Links to files and folders are followed, but each real path is visited only once, so that loops end and files are
    not counted twice. Hidden files and folders are skipped. A file with a requested suffix that cannot be read is
    reported as a fault and never silently skipped.

    Args:
        folder: the folder to search.
        recursive: also search all subfolders.
        suffixes: suffixes of the files to find, in lower case; `None` for all.
    """
    found = Walk()
    seen: set[tuple[int, int]] = set()
    # A list instead of recursion, because folders may be deeper than Python's stack. Real files come first, so that a
    # file is known by its own name instead of that of a link.
    plain, linked = [Path(folder)], list[Path]()
    while plain or linked:
        place = plain.pop() if plain else linked.pop(0)
        try:
            if not _is_new(place.stat(), seen):
                continue
            with os.scandir(place) as entries:
                children = sorted((entry for entry in entries if not entry.name.startswith(".")), key=_name)
        except OSError as error:
            found.faults[str(place)] = f"{place}: this folder cannot be read ({error.strerror or error})."
            continue
        for entry in children:
            path = Path(entry.path)
            wanted = suffixes is None or path.suffix.lower() in suffixes
            try:
                status = entry.stat()
            except OSError as error:
                if wanted or entry.is_symlink() or (recursive and entry.is_dir(follow_symlinks=False)):
                    why = "a broken link" if isinstance(error, FileNotFoundError) else error.strerror or error
                    found.faults[entry.path] = f"{entry.path}: cannot be read ({why})."
                continue
            if stat.S_ISDIR(status.st_mode):
                if recursive:
                    (linked if entry.is_symlink() else plain).append(path)
            elif not stat.S_ISREG(status.st_mode):
                if wanted:
                    found.faults[entry.path] = f"{entry.path} is a pipe, socket or device, not a file."
            elif wanted:
                found.files.append(path)
            else:
                found.others += 1
    found.files = _each_once(found.files)
    return found


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _is_new(status: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _each_once(files: list[Path]) -> list[Path]:
    """Return each real file once, sorted, with its own name if that was found."""
    kept: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: (file.is_symlink(), file)):
        kept.setdefault(os.path.realpath(file), file)
    return sorted(kept.values())


def expand_inputs(
    names: Sequence[str], recursive: bool = False, suffixes: Collection[str] = PICTURE_SUFFIXES
) -> Inputs:
    """Expand folders and globs into images or other files.

    A name that is neither a folder nor a pattern is kept as an image, so that reading it gives the error.

    Args:
        names: files, folders, glob patterns (`**` for any depth), http(s) URLs, and tables of images: CSV files with
            a column `img_path`, relative to their folder or absolute.
        recursive: also search subfolders.
        suffixes: suffixes of files to take from folders.
    """
    found = Inputs()
    for name in names:
        if "://" in name:
            found.pictures.append(name)
        elif _is_folder(name):
            walk = walk_folder(name, recursive, suffixes)
            found.pictures += map(str, walk.files)
            found.faults |= walk.faults
            found.skipped += walk.others
            if not walk.files and not walk.faults:
                deeper = "" if recursive else " (use `recursive` to search its subfolders)"
                found.faults[name] = f"{name}: this folder does not contain images{deeper}."
        elif name.lower().endswith(TABLE_SUFFIX) and os.path.isfile(name):  # noqa: PTH113 - as in `_is_folder`
            try:
                found.pictures += _listed(Path(name))
            except (OSError, ValueError) as error:
                found.faults[name] = str(error)
        elif glob.has_magic(name) and not os.path.lexists(name):
            matches, faults = _matches(name)
            found.pictures += matches
            found.faults |= faults
            if not matches and not faults:
                found.faults[name] = f"{name}: no file matches this pattern."
        else:
            found.pictures.append(name)
    return found


def _is_folder(name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name).st_mode)  # noqa: PTH116 - a name, which may hold anything
    except (OSError, ValueError):  # reading it gives the error
        return False


def _listed(table: Path) -> list[str]:
    """Yield the images of a table, in its order."""
    columns, rows = read_csv(table, fill=True)
    if PATH_COLUMN not in columns:
        raise ValueError(f"{table} has the columns {columns}, expected {PATH_COLUMN}.")
    if not rows:
        raise ValueError(f"{table} does not list images.")
    for where, row in rows:
        if not row[PATH_COLUMN]:
            raise ValueError(f"{where} has no {PATH_COLUMN}. Complete or remove the line.")
    return [str(table.parent / row[PATH_COLUMN]) for _, row in rows]


def _matches(pattern: str) -> tuple[list[str], dict[str, str]]:
    """Return the matches of a glob pattern, each real file once; `**` does not follow links to folders, which may be
    cyclic."""
    head, deep, tail = pattern.partition("**")
    found: list[Path] = []
    faults: dict[str, str] = {}
    if deep:
        for root in sorted(glob.glob(head)) if head else ["."]:  # noqa: PTH207 - Path has no absolute globs
            walk = walk_folder(root, recursive=True, suffixes=None)
            faults |= walk.faults
            found += [
                file for file in walk.files if PurePath(os.path.relpath(file, root)).match(tail.lstrip("/\\") or "*")
            ]
        if not head:
            found = [file.relative_to(".") for file in found]
    else:
        for name in glob.glob(pattern):  # noqa: PTH207
            path = Path(name)
            if path.is_file() or path.is_symlink() or not path.is_dir():
                found.append(path)
    return [str(file) for file in _each_once(found)], faults


def read_turns(path: str | Path) -> list[tuple[str, str]]:
    """Return earlier questions and answers from a JSON file, a list of `[question, answer]`.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it contains something else; the message names the file.
    """
    turns = parse_json(read_text(Path(path)), str(path))
    for turn in turns if isinstance(turns, list) else [None]:
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn)):
            raise ValueError(f"{path} must contain a JSON list of [question, answer] pairs of texts.")
    return [(question, answer) for question, answer in turns]


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not JSON, or not an object; the message names the file.
    """
    fields = parse_json(read_text(Path(path)), str(path))
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must contain a JSON object, but contains a {type(fields).__name__}.")
    return fields


class _Reader(yaml.SafeLoader):
    """Refuse duplicate keys, of which a reader would see only one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"{repeated[0]!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: Any) -> Any:
    """Parse a YAML text.

    Args:
        text: at most `LARGEST_YAML` characters, nested at most `DEEPEST_YAML` levels, without reused anchors: a few
            lines of them can expand to gigabytes.
        where: its name in error messages.

    Raises:
        ValueError: if the text is invalid or beyond these limits.
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
