"""The data sets this package can read, by name, and where their raw files are looked for."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

__all__ = ["BUILDERS", "DATA_VARIABLE", "builder_class", "data_folder", "load_split", "open_split"]

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


def data_folder(dataset: str, data_dir: str | Path | None = None) -> Path:
    """Where the raw files of a data set lie: `data_dir`, or the data set's folder in `$DEEPFAKE_DATA`.

    Raises:
        ValueError: if neither is set.
        FileNotFoundError: if there is no such folder.
    """
    root = os.environ.get(DATA_VARIABLE)
    if data_dir is None and not root:
        raise ValueError(
            f"No data: pass --data_dir (the folder of {dataset} in its official layout), or set {DATA_VARIABLE} to "
            f"the folder that holds {dataset}/."
        )
    folder = Path(data_dir) if data_dir is not None else Path(str(root)) / dataset
    if not folder.is_dir():
        origin = "--data_dir" if data_dir is not None else DATA_VARIABLE
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
        ValueError: for an unknown data set, config or split, or an empty split.
        ImportError: if `datasets` is not installed.
    """
    if dataset not in BUILDERS:
        raise ValueError(f"dataset is {dataset!r}, known are {', '.join(BUILDERS)}.")
    kind = builder_class(dataset)
    import datasets

    from deepfake_detectors.building import _fingerprint, _generators

    builder = kind(config_name=config, data_dir=str(data_folder(dataset, data_dir).resolve()), **(options or {}))
    folder = Path(f"{builder.cache_dir}-{split}")
    note = folder / SOURCE_FILE
    built = note.read_text(encoding="utf-8") if note.is_file() else None
    source, mode = built, datasets.DownloadMode.REUSE_DATASET_IF_EXISTS
    if rebuild or built is None:
        generators = {str(generator.name): generator for generator in _generators(builder)}
        if split not in generators:
            raise ValueError(f"{dataset} has no split {split!r}, but {', '.join(generators)}.")
        source = _fingerprint(builder, generators[split].gen_kwargs["units"])
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
