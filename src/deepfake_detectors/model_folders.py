"""Safety checks for model folders: plausible sizes, regular files, paths inside the folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

from deepfake_detectors.families import FAMILIES
from deepfake_detectors.files import read_json_object, weight_files

__all__ = ["check_model_folder", "model_faults"]

ADAPTER_CONFIG = "adapter_config.json"
# Settings that libraries parse before our code. Vocabularies are not checked, because they are large and parsed
# safely.
SETTINGS = (
    CONFIG_NAME,
    ADAPTER_CONFIG,
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)
SIZED = (CONFIG_NAME, "processor_config.json", "preprocessor_config.json")
LARGEST_FILE = 64 * 2**20
# By the last word of a name. Far above every published model, and far below sizes that fill the memory or take hours.
BOUNDS = (
    (re.compile(r"(^|_)(size|height|width|edge|crop)$"), 2**22),
    (re.compile(r"(layers|depth|blocks|heads|groups)$"), 4096),
    (re.compile(r"(dim|channels|tokens|embeddings|length)$"), 2**24),
)
LARGEST_SIDE = 4096
SIDES = frozenset({"image_size", "size", "crop_size", "height", "width", "shortest_edge", "longest_edge"})
LARGEST_NUMBER = 2**53
READ_BY_NAME = ("tokenizer_file", "vocab_file", "merges_file", "spm_file", "sp_model")


def check_model_folder(folder: str | Path) -> None:
    """Refuse a folder with harmful files before a library opens them.

    Args:
        folder: a folder of a model or an adapter. A Hub id is left to the Hub client.

    Raises:
        ValueError: naming the file: not a regular file, not JSON in UTF-8, nested too deeply, with a duplicate key, a
            number out of range, or a path outside the folder. The same applies to the base of an adapter.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is not a regular file.")
    contents = {}
    for name in SETTINGS:
        path = folder / name
        if path.is_file():
            if path.stat().st_size > LARGEST_FILE:
                raise ValueError(f"{path} has {path.stat().st_size} bytes; the limit is {LARGEST_FILE}.")
            contents[name] = read_json_object(path)
    # Other models use the same names for numbers of pixels instead of sides.
    count_sides = {None, *FAMILIES, *(row.stock_model_type for row in FAMILIES.values())}
    square = str(contents.get(CONFIG_NAME, {}).get("model_type")) in map(str, count_sides)
    for name in SIZED:
        for key, number in _numbers(contents.get(name, {})):
            _check_number(folder / name, key, number, square)
    for key in READ_BY_NAME:
        value = contents.get("tokenizer_config.json", {}).get(key)
        if isinstance(value, str) and (Path(value).is_absolute() or ".." in Path(value).parts):
            raise ValueError(
                f"{folder / 'tokenizer_config.json'} contains the path {value!r}; paths must stay inside the folder."
            )
    weight_files(folder)  # refuses an index that points outside the folder
    for name in (ADAPTER_CONFIG, CONFIG_NAME):
        base = contents.get(name, {}).get("base_model_name_or_path")
        if base is not None and not isinstance(base, str):
            raise ValueError(f"{folder / name}: `base_model_name_or_path` is {base!r}, expected a name or `null`.")
        if base and Path(base).is_dir() and Path(base).resolve() != folder.resolve():
            _check_base(Path(base), folder)


def _check_base(base: Path, adapter: Path) -> None:
    fields = read_json_object(base / CONFIG_NAME) if (base / CONFIG_NAME).is_file() else {}
    if fields.get("base_model_name_or_path"):
        raise ValueError(f"The base {base} of {adapter} is also an adapter. Merge that first.")
    check_model_folder(base)


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int | float]]:
    """Yield every number with its key."""
    waiting = [(key, value)]
    while waiting:
        name, found = waiting.pop()
        if isinstance(found, dict):
            waiting += [(str(inner), item) for inner, item in found.items()]
        elif isinstance(found, list):
            waiting += [(name, item) for item in found]
        elif isinstance(found, (int, float)) and not isinstance(found, bool):
            yield name, found


def _check_number(path: Path, key: str, value: int | float, square: bool) -> None:
    limits = [limit for pattern, limit in BOUNDS if pattern.search(key)]
    limit = min([LARGEST_SIDE if square and key in SIDES else LARGEST_NUMBER, *limits])
    if isinstance(value, int) and abs(value) > limit:
        shown = value if abs(value) < 10**20 else "a longer number"
        raise ValueError(f"{path}: {key} is {shown}, but at most {limit} is allowed.")


@contextmanager
def model_faults(source: Any) -> Iterator[None]:
    """Convert library errors about a damaged model folder to a `ValueError` that names the folder.

    Settings of the wrong type can raise any exception from deep inside a library.
    """
    try:
        yield
    except (ValueError, OSError, ImportError):
        raise
    except Exception as error:
        raise ValueError(f"No model could be loaded from {source}: {type(error).__name__}: {error}") from error
