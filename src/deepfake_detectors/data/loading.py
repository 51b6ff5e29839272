"""One split of a dataset, read from its raw files through the cache of `datasets`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deepfake_detectors.data.registry import make_builder

if TYPE_CHECKING:
    import datasets

    from deepfake_detectors.dataset_scripts._builder import Unit

__all__ = ["LIMIT", "UnitsState", "files_digest", "load_split", "open_split", "undecoded", "units_state"]

SOURCE_FILE = "source.sha256"  # beside a cached split: the fingerprint of what it was built from
LIMIT = "max_pixels"  # the option that says whether an image is read, never how: no row depends on it


def load_split(
    dataset: str,
    split: str,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    rebuild: bool = True,
) -> datasets.Dataset:
    """Return the rows of one split; arguments and errors are those of `open_split`."""
    return open_split(dataset, split, data_dir, config, options, rebuild)[0]


def open_split(
    dataset: str,
    split: str,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    rebuild: bool = True,
) -> tuple[datasets.Dataset, str]:
    """Build one split of a dataset, and return what it was read from.

    Args:
        dataset: a key of `DATASETS`.
        split: name of the split.
        data_dir: the raw files; see `data_folder`.
        config: config name of the builder; its default if `None`.
        options: further fields of the builder's config.
        rebuild: check whether the raw files or the options have changed since this split was added to the cache of
            `datasets`, and build it again if so; otherwise the cached split is used. Only one process of a run should
            check.

    Returns:
        The rows, and the fingerprint of the raw files and of the options.

    Raises:
        ValueError: for an unknown dataset, config or split, an option that `config_options` refuses, or an empty
            split.
        FileNotFoundError: for missing raw files.
        ImportError: if `datasets` is not installed.
    """
    builder = make_builder(dataset, data_dir, config, options)
    import datasets

    folder = Path(f"{builder.cache_dir}-{split}")
    note = folder / SOURCE_FILE
    built = note.read_text(encoding="utf-8") if note.is_file() else None
    source, mode = built, datasets.DownloadMode.REUSE_DATASET_IF_EXISTS
    if rebuild or built is None:
        splits = builder.find_splits()
        if split not in splits:
            raise ValueError(f"{dataset} has no split {split!r}; its splits are {', '.join(splits)}.")
        source = units_state(builder, splits[split]).fingerprint
        builder.keep_splits({split: splits[split]})
        if source != built:
            mode = datasets.DownloadMode.FORCE_REDOWNLOAD
    builder.download_and_prepare(str(folder), download_mode=mode)
    if source != built:
        note.write_text(str(source), encoding="utf-8")  # last: without it the split is built again
    rows = builder.as_dataset(split=split)
    if len(rows) == 0:
        raise ValueError(f"The split {split!r} of {dataset} is empty.")
    return rows, str(source)


def undecoded(rows: Any) -> Any:
    """Return a `datasets.Dataset` whose images come as `{"bytes", "path"}`, for `load_image` to decode.

    Otherwise `datasets` decodes them itself: any format that Pillow reads, without a size limit, with 16 bits and
    transparency as stored.
    """
    import datasets

    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image) and feature.decode:
            rows = rows.cast_column(name, datasets.Image(mode=feature.mode, decode=False))
    return rows


class UnitsState(NamedTuple):
    """What a split depends on.

    Attributes:
        fingerprint: digest of units, options, features, and of the files.
        files: digest of path, size and times of every file that is read.
    """

    fingerprint: str
    files: str


def units_state(builder: Any, units: list[Unit]) -> UnitsState:
    """Return what the rows of these units depend on."""
    options = dataclasses.asdict(builder.config)
    options.pop(LIMIT, None)
    digest = hashlib.sha256(json.dumps([options, str(builder.info.features)], default=str).encode())
    files = hashlib.sha256()
    to_text = json.JSONEncoder(default=str).encode
    for unit in units:
        digest.update(to_text(unit).encode())
        for state in _file_states(unit):
            digest.update(state)
            files.update(state)
    return UnitsState(digest.hexdigest(), files.hexdigest())


def files_digest(units: list[Unit]) -> str:
    """Return `UnitsState.files` as it is now."""
    digest = hashlib.sha256()
    for unit in units:
        for state in _file_states(unit):
            digest.update(state)
    return digest.hexdigest()


def _file_states(unit: Unit) -> Iterator[bytes]:
    for path in unit.files():
        status = os.stat(path)  # noqa: PTH116 - a million of them
        # The second time also moves where a copy has been given the time of its original.
        yield f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode()
