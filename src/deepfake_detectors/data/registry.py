"""The datasets this package can read: their table, builders and options, and where their raw files are."""

from __future__ import annotations

import dataclasses
import importlib
import os
import tomllib
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepfake_detectors.dataset_scripts._builder import RawBuilder

__all__ = [
    "DATASETS",
    "DATA_VARIABLE",
    "DatasetEntry",
    "builder_class",
    "config_options",
    "data_folder",
    "dataset_info",
    "make_builder",
    "open_builder",
    "with_limit",
]

DATA_VARIABLE = "DEEPFAKE_DATA"
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class DatasetEntry:
    """One row of the table. `datasets.toml` says what each field means."""

    name: str
    title: str
    builder: str
    configs: tuple[str, ...]
    layout_verified: bool
    research_only: bool
    terms: str


def _read_table() -> dict[str, DatasetEntry]:
    text = files("deepfake_detectors").joinpath("datasets.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text).items()
    return {name: DatasetEntry(name=name, **{**row, "configs": tuple(row["configs"])}) for name, row in rows}


DATASETS: Mapping[str, DatasetEntry] = _read_table()


def data_folder(dataset: str, data_dir: str | Path | None = None, suffixes: Collection[str] = ()) -> Path:
    """Return where the raw files of a dataset lie: `data_dir`, or the dataset's folder in `$DEEPFAKE_DATA`.

    A file with one of the `suffixes` can be given instead of a folder.

    Raises:
        ValueError: if neither is set.
        FileNotFoundError: if there is no such folder.
    """
    root = os.environ.get(DATA_VARIABLE)
    if data_dir is None and not root:
        raise ValueError(
            f"`data_dir` is not set. It is the folder of {dataset} in its official layout. Or set the environment "
            f"variable {DATA_VARIABLE} to the folder that contains {dataset}/."
        )
    folder = Path(data_dir) if data_dir is not None else Path(str(root)) / dataset
    if not folder.is_dir() and not (folder.is_file() and folder.suffix.lower() in suffixes):
        origin = "`data_dir`" if data_dir is not None else DATA_VARIABLE
        raise FileNotFoundError(
            f"{folder} (from {origin}) is not a folder; it should contain the raw files of {dataset}."
        )
    return folder


def builder_class(dataset: str) -> Any:
    """Return the builder class of a dataset.

    Raises:
        ValueError: for an unknown name.
        ImportError: if `datasets` is not installed.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}; known are {', '.join(sorted(DATASETS))}.")
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Reading datasets needs the library datasets, which is not installed: "
            "pip install 'deepfake-detectors[data]'"
        ) from error
    module, _, name = DATASETS[dataset].builder.partition(":")
    return getattr(importlib.import_module(module), name)


def dataset_info(dataset: str) -> dict[str, Any]:
    """Return what is known of a dataset before any file of it is read.

    Args:
        dataset: a key of `DATASETS`.

    Returns:
        Name, title, configs and their options, the expected layout, the terms, where to get it, and the published
        counts per config, split and class.

    Raises:
        ValueError, ImportError: as `builder_class`.
    """
    kind = builder_class(dataset)
    inherited = {"name", "version", "data_dir", "data_files", "description"}
    fields = dataclasses.fields(kind.BUILDER_CONFIG_CLASS)
    return {
        "name": dataset,
        "title": kind.NAME,
        "configs": [config.name for config in kind.BUILDER_CONFIGS],
        "default_config": kind.DEFAULT_CONFIG_NAME,
        "options": [item.name for item in fields if item.name not in inherited],
        "layout": kind.LAYOUT,
        "layout_verified": kind.LAYOUT_VERIFIED,
        "terms": kind.TERMS,
        "research_only": kind.RESEARCH_ONLY,
        "homepage": kind.HOMEPAGE,
        "get_it": kind.REMEDY,
        "version": str(kind.VERSION),
        "published_counts": _published_counts(kind),
    }


def _published_counts(kind: Any) -> dict[str, Any]:
    """Return counts per config, split and class, of the configs that open without options and have any."""
    counts = {}
    for config in kind.BUILDER_CONFIGS:
        try:
            builder = kind(config_name=config.name)
        except ValueError:  # it cannot be opened without options
            continue
        known = {**builder.likely_counts(), **builder.official_counts()}
        if known:
            counts[config.name] = known
    return counts


def make_builder(
    dataset: str,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
) -> Any:
    """Return the builder of a dataset over its raw files; nothing is read yet.

    Args:
        dataset: a key of `DATASETS`.
        data_dir: the raw files; see `data_folder`.
        config: config name; the builder's default if `None`.
        options: further fields of the config.

    Raises:
        ValueError: for an unknown dataset or config, or an option that `config_options` refuses.
        FileNotFoundError: if the folder does not exist. ImportError: if `datasets` is not installed.
    """
    kind = builder_class(dataset)
    folder = data_folder(dataset, data_dir, kind.SOURCE_SUFFIXES).resolve()
    return kind(config_name=config, data_dir=str(folder), **config_options(dataset, options))


def open_builder(
    dataset: str | RawBuilder,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    max_pixels: int | None = None,
) -> Any:
    """Return a given builder unchanged, or make one by name.

    Raises:
        ValueError: as `make_builder`, or for a builder with one of the others, which it has already.
        FileNotFoundError, ImportError: as `make_builder`.
    """
    if isinstance(dataset, str):
        return make_builder(dataset, data_dir, config, with_limit(options, max_pixels))
    if data_dir is not None or config is not None or options or max_pixels is not None:
        raise ValueError(
            "`data_dir`, `config`, `options` and `max_pixels` can only be used with a dataset given by name, not "
            "with a builder."
        )
    return dataset


def with_limit(options: dict[str, Any] | None, max_pixels: int | None) -> dict[str, Any]:
    """Return the options with `max_pixels` among them, where it is given."""
    return {**(options or {})} if max_pixels is None else {**(options or {}), "max_pixels": max_pixels}


def config_options(dataset: str, options: dict[str, Any] | None) -> dict[str, Any]:
    """Return options of a builder in the types of its config's fields, whether they come as values or as text.

    Raises:
        ValueError: for an unknown option, or a value that does not fit the type of its field.
    """
    import datasets

    config = builder_class(dataset).BUILDER_CONFIG_CLASS
    inherited = {item.name for item in dataclasses.fields(datasets.BuilderConfig)}
    known = {item.name for item in dataclasses.fields(config)} - inherited
    unknown = sorted(set(options or {}) - known)
    if unknown:
        raise ValueError(f"{dataset} has no option {', '.join(unknown)}; its options are {', '.join(sorted(known))}.")
    hints = typing.get_type_hints(config)
    return {name: _converted(name, value, hints[name]) for name, value in (options or {}).items()}


def _converted(name: str, value: Any, hint: Any) -> Any:
    """Return the value in the type of its field."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if str in kinds and isinstance(value, str):
        return value
    kind = typing.get_origin(kinds[0]) or kinds[0]
    text = value.strip() if isinstance(value, str) else str(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is bool and text.casefold() in BOOLEANS:
        return BOOLEANS[text.casefold()]
    if kind is tuple and isinstance(value, str):
        return (value,)
    if kind is tuple and isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if kind is dict and isinstance(value, dict):
        return value
    if kind is str and number and isinstance(value, int):  # a name of digits reads as a number
        return text
    if kind in (int, float) and (number or isinstance(value, str)):
        try:
            return kind(text)
        except ValueError:
            pass
    expected = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text (in double quotes, if it looks like something else: '\"true\"')",
        tuple: 'a text or a list of texts, such as ["a", "b"]',
        dict: 'a table, such as {"a": "b"}',
    }
    raise ValueError(f"Option {name} is {value!r}, expected {expected.get(kind, hint)}.")
