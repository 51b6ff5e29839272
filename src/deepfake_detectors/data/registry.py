"""The data sets this package can read, by name, and where their raw files are looked for."""

from __future__ import annotations

import dataclasses
import importlib
import os
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

__all__ = ["BUILDERS", "DATA_VARIABLE", "builder_class", "config_options", "data_folder", "load_split", "open_split"]

DATA_VARIABLE = "DEEPFAKE_DATA"
SOURCE_FILE = "source.sha256"  # beside a cached split: the fingerprint of what it was built from
BUILDERS = {
    "ddvqa": "deepfake_detectors.dataset_scripts.ddvqa:DDVQA",
    "ffpp_hdf5": "deepfake_detectors.dataset_scripts.ffpp_hdf5:FFPPHdf5",
    "faceforensics": "deepfake_detectors.dataset_scripts.faceforensics:FaceForensics",
    "celeb_df": "deepfake_detectors.dataset_scripts.celeb_df:CelebDF",
    "deepfakebench": "deepfake_detectors.dataset_scripts.deepfakebench:DeepfakeBench",
    "fakeclue": "deepfake_detectors.dataset_scripts.fakeclue:FakeClue",
    "antifakeprompt": "deepfake_detectors.dataset_scripts.antifakeprompt:AntifakePrompt",
    "image_folder": "deepfake_detectors.dataset_scripts.image_folder:RealFakeFolder",
    "genimage": "deepfake_detectors.dataset_scripts.genimage:GenImage",
    "dfd": "deepfake_detectors.dataset_scripts.dfd:DeepFakeDetection",
    "dfdc": "deepfake_detectors.dataset_scripts.dfdc:DFDC",
    "dfdcp": "deepfake_detectors.dataset_scripts.dfdcp:DFDCP",
    "deeperforensics": "deepfake_detectors.dataset_scripts.deeperforensics:DeeperForensics",
    "wilddeepfake": "deepfake_detectors.dataset_scripts.wilddeepfake:WildDeepfake",
    "df40": "deepfake_detectors.dataset_scripts.df40:DF40",
    "ffiw": "deepfake_detectors.dataset_scripts.ffiw:FFIW",
    "uadfv": "deepfake_detectors.dataset_scripts.uadfv:UADFV",
    "loki": "deepfake_detectors.dataset_scripts.loki:LOKI",
    "dmimage": "deepfake_detectors.dataset_scripts.dmimage:DMimage",
}
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def data_folder(dataset: str, data_dir: str | Path | None = None) -> Path:
    """Where the raw files of a data set lie: `data_dir`, or the data set's folder in `$DEEPFAKE_DATA`.

    Raises:
        ValueError: if neither is set.
        FileNotFoundError: if there is no such folder.
    """
    root = os.environ.get(DATA_VARIABLE)
    if data_dir is None and not root:
        raise ValueError(
            f"No data: pass --data-dir (the folder of {dataset} in its official layout), or set {DATA_VARIABLE} to "
            f"the folder that holds {dataset}/."
        )
    folder = Path(data_dir) if data_dir is not None else Path(str(root)) / dataset
    if not folder.is_dir():
        origin = "--data-dir" if data_dir is not None else DATA_VARIABLE
        raise FileNotFoundError(f"{folder} (from {origin}) is no folder, but should hold the raw files of {dataset}.")
    return folder


def builder_class(dataset: str) -> Any:
    """The builder of a data set.

    Raises:
        ValueError: for an unknown name.
        ImportError: if `datasets` is not installed.
    """
    if dataset not in BUILDERS:
        raise ValueError(f"unknown data set {dataset!r}; known are {', '.join(sorted(BUILDERS))}.")
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Reading data sets needs the library datasets, which is not installed: "
            "pip install 'deepfake-detectors[data]'"
        ) from error
    module, name = BUILDERS[dataset].split(":")
    return getattr(importlib.import_module(module), name)


def config_options(dataset: str, options: dict[str, Any] | None) -> dict[str, Any]:
    """Options of a data set's builder in the types of its config's fields, whether they come as values or as text.

    Raises:
        ValueError: for an unknown option, or a value that is none of its field's type.
    """
    import datasets

    config = builder_class(dataset).BUILDER_CONFIG_CLASS
    inherited = {item.name for item in dataclasses.fields(datasets.BuilderConfig)}
    known = {item.name for item in dataclasses.fields(config)} - inherited
    unknown = sorted(set(options or {}) - known)
    if unknown:
        raise ValueError(
            f"{dataset} has no option {', '.join(unknown)}, but {', '.join(sorted(known))}; see: deepfake-detectors "
            f"dataset info {dataset}"
        )
    hints = typing.get_type_hints(config)
    return {name: _converted(name, value, hints[name]) for name, value in (options or {}).items()}


def _converted(name: str, value: Any, hint: Any) -> Any:
    """The value in the type of its field."""
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


def load_split(
    dataset: str,
    split: str,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    rebuild: bool = True,
) -> datasets.Dataset:
    """Build one split of a data set; arguments and errors are those of `open_split`."""
    return open_split(dataset, split, data_dir, config, options, rebuild)[0]


def open_split(
    dataset: str,
    split: str,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    rebuild: bool = True,
) -> tuple[datasets.Dataset, str]:
    """Build one split of a data set, and say what it was read from.

    Args:
        dataset: a key of `BUILDERS`.
        split: name of the split.
        data_dir: see `data_folder`.
        config: config name of the builder; its default if `None`.
        options: further fields of the builder's config.
        rebuild: look whether the raw files or the options have changed since this split was put into the cache of
            `datasets`, and build it again if so; otherwise what is there is taken. Of the processes of one run only
            one should look.

    Returns:
        The rows, and the fingerprint of the raw files and of the options.

    Raises:
        ValueError: for an unknown data set, config or split, an option that `config_options` refuses, or an empty
            split.
        ImportError: if `datasets` is not installed.
    """
    if dataset not in BUILDERS:
        raise ValueError(f"dataset is {dataset!r}, known are {', '.join(BUILDERS)}.")
    kind = builder_class(dataset)
    import datasets

    from deepfake_detectors.data.parquet import split_generators, units_fingerprint

    given = config_options(dataset, options)
    builder = kind(config_name=config, data_dir=str(data_folder(dataset, data_dir).resolve()), **given)
    folder = Path(f"{builder.cache_dir}-{split}")
    note = folder / SOURCE_FILE
    built = note.read_text(encoding="utf-8") if note.is_file() else None
    source, mode = built, datasets.DownloadMode.REUSE_DATASET_IF_EXISTS
    if rebuild or built is None:
        generators = {str(generator.name): generator for generator in split_generators(builder)}
        if split not in generators:
            raise ValueError(f"{dataset} has no split {split!r}, but {', '.join(generators)}.")
        source = units_fingerprint(builder, generators[split].gen_kwargs["units"])
        builder._split_generators = lambda dl_manager: [generators[split]]  # the other splits are not asked for
        builder.info.splits = None  # nor expected, though a cached build of the whole data set knows them
        if source != built:
            mode = datasets.DownloadMode.FORCE_REDOWNLOAD
    builder.download_and_prepare(str(folder), download_mode=mode)
    if source != built:
        note.write_text(str(source), encoding="utf-8")  # last: without it the split is built again
    rows = builder.as_dataset(split=split)
    if len(rows) == 0:
        raise ValueError(f"The split {split!r} of {dataset} is empty.")
    return rows, str(source)
