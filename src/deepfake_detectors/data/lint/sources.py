"""Where the images to lint come from: a builder over raw files, a folder of images, or built Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from deepfake_detectors.data.lint.measures import Picture, clip_traces
from deepfake_detectors.data.registry import DATASETS, make_builder, with_limit
from deepfake_detectors.dataset_scripts._builder import Finding
from deepfake_detectors.dataset_scripts._frames import CLIP_SUFFIXES
from deepfake_detectors.dataset_scripts.image_folder import CONVENTIONS, TABLE
from deepfake_detectors.files import TABLE_SUFFIX
from deepfake_detectors.modeling.image_loading import MAX_PIXELS

__all__ = ["Source", "builder_source", "open_source", "parquet_source"]

KNOWN = ("manipulation", "video_id", "group_id", "target_id", "source_id")
LABELS = ["real", "fake"]
BATCH = 64  # rows in memory at a time


class Source(NamedTuple):
    """Images to lint.

    Attributes:
        name: what is linted, for the report.
        total: rows to expect, an upper bound for clips; `None` if it is not known before.
        pictures: read one by one.
        remarks: what was noticed while listing them.
        max_pixels: width times height of an image that is decoded.
    """

    name: str
    total: int | None
    pictures: Iterator[Picture]
    remarks: list[Finding] = []
    max_pixels: int = MAX_PIXELS


def open_source(
    name: str | Path,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    max_pixels: int | None = None,
) -> Source:
    """Return the images of a dataset by name, of a built folder, of a table, or of a folder of real and fake images.

    Args:
        name: a key of `DATASETS`; a folder with Parquet files, or with images in class folders whose names fit one
            of the conventions of `image_folder`; or a CSV file `img_path,label`, the table of its config `table`.
        data_dir: the raw files of a dataset given by name.
        config: config of the builder or of the Parquet folder.
        options: further fields of the builder's config.
        max_pixels: width times height of an image that is decoded, by default 100 million.

    Raises:
        ValueError: for a name that is neither of them, or a folder that does not state which images are real.
        FileNotFoundError: for missing raw files.
    """
    options = with_limit(options, max_pixels)
    if name in DATASETS:
        return builder_source(str(name), make_builder(str(name), data_dir, config, options))
    folder = Path(name)
    if data_dir is not None and folder.exists():
        raise ValueError(f"`data_dir` is for datasets given by name; {folder} is a path. Leave it out.")
    if folder.suffix.lower() == TABLE_SUFFIX and folder.is_file():
        if config not in (None, TABLE):
            raise ValueError(f"{folder} is a table of images: `config` is {config!r}, leave it out.")
        return builder_source(folder.name, make_builder("image_folder", folder, TABLE, options))
    if not folder.is_dir():
        known = ", ".join(sorted(DATASETS))
        raise ValueError(f"{str(name)!r} is neither a folder, a CSV file, nor a dataset; known datasets are {known}.")
    if next(folder.rglob("*.parquet"), None) is not None:
        return parquet_source(folder, config)._replace(max_pixels=max_pixels or MAX_PIXELS)
    if config is None:
        present = {child.name.casefold() for child in folder.rglob("*") if child.is_dir()}
        fitting = [key for key, (real, fake) in CONVENTIONS.items() if present & set(real) and present & set(fake)]
        if len(fitting) != 1:
            raise ValueError(
                f"{folder} contains no Parquet files, and its folder names match "
                f"{' and '.join(fitting) or 'no convention'}. "
                f"State which folders are real: `config` is one of {', '.join(CONVENTIONS)}."
            )
        config = fitting[0]
    return builder_source(folder.name, make_builder("image_folder", folder, config, options))


def builder_source(name: str, builder: Any) -> Source:
    """Return the images of a builder as they lie on disk; one that cannot be read becomes an image with an error.

    Raises:
        ValueError, OSError: where the builder refuses the raw files altogether.
    """
    builder.log_findings = False  # `check_dataset` is there for them
    builder.decode_listed = False  # a broken image is one finding of many
    splits = builder.inspect(Path(builder.config.data_dir))
    total = sum(unit.rows for units in splits.values() for unit in units)
    limit = builder.config.max_pixels
    return Source(f"{name} ({builder.config.name})", total, _pictures(builder, splits), builder.findings, limit)


def _pictures(builder: Any, splits: dict[str, list[Any]]) -> Iterator[Picture]:
    for split, units in splits.items():
        for unit in units:
            yield from _unit_pictures(builder, unit, split)


def _unit_pictures(builder: Any, unit: Any, split: str) -> Iterator[Picture]:
    """Files directly, so that a broken one does not hide those behind it; what lies in archives by the builder."""
    path = Path(unit.path)
    if path.is_dir() and all(isinstance(name, str) for name in unit.frames):
        for name in unit.frames:
            number = PurePosixPath(name).with_suffix("").as_posix()
            yield _picture({**unit.columns, "id": f"{unit.id}/{number}", "image": str(path / name)}, split)
    elif not unit.frames and path.is_file():
        yield _picture({**unit.columns, "id": unit.id, "image": unit.path}, split)
    else:
        is_clip = path.suffix.lower() in CLIP_SUFFIXES
        traces, name = (clip_traces(path), unit.path) if is_clip else ({}, None)
        try:
            for row in builder.examples(unit):
                picture = _picture(row, split)
                yield replace(picture, name=picture.name or name, traces=traces)
        except (ValueError, OSError) as error:
            yield Picture(unit.id, split, unit.columns["label"], None, None, _known(unit.columns), str(error))


def _picture(row: dict[str, Any], split: str) -> Picture:
    image, label = row["image"], row["label"]
    name: str | None = None
    if isinstance(image, str):
        name, image = image, Path(image)
    elif isinstance(image, dict):
        image, name = image["bytes"], image["path"]
    return Picture(row["id"], split, LABELS[label] if isinstance(label, int) else label, image, name, _known(row))


def _known(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: columns.get(name) for name in KNOWN}


def parquet_source(folder: Path, config: str | None = None) -> Source:
    """Return the images of a folder that `datasets.load_dataset` can read, such as one written by `build_dataset`.

    Args:
        folder: with Parquet files, or with one folder of them per config.
        config: which config, if there are several.

    Raises:
        ValueError: if there are several configs and `config` is not given, or for rows without `image` or a real/fake
            `label`.
    """
    import datasets

    card = folder / "README.md"
    if not card.is_file() and next(folder.glob("*.parquet"), None) is None:
        configs = sorted({path.parent.name for path in folder.glob("*/*.parquet")})
        if config is None and len(configs) == 1:
            config = configs[0]
        if config not in configs:
            raise ValueError(
                f"{folder} contains the configs {', '.join(configs)}; `config` is {config!r}, choose one of them."
            )
        folder, config = folder / config, None
    try:
        files = datasets.load_dataset_builder(str(folder), config).config.data_files
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{folder} cannot be loaded: {error}") from error
    shards = [(str(split), Path(path)) for split, paths in files.items() for path in paths]
    total = sum(_checked(path).num_rows for _, path in shards)
    name = folder.name if config is None else f"{folder.name} ({config})"
    return Source(name, total, (picture for split, path in shards for picture in _shard_pictures(split, path)))


def _checked(path: Path) -> Any:
    """The metadata of a shard, whose columns are looked at before hours of reading."""
    import datasets
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    features = datasets.Features.from_arrow_schema(metadata.schema.to_arrow_schema())
    if "image" not in features or sorted(getattr(features.get("label"), "names", [])) != sorted(LABELS):
        raise ValueError(
            f"{path}: expected the columns image and label, with the labels real and fake; found {features}. Write "
            "it with build_dataset."
        )
    return metadata


def _shard_pictures(split: str, path: Path) -> Iterator[Picture]:
    import datasets
    import pyarrow.parquet as pq

    # Buffered beforehand, as `load_dataset(streaming=True)` does, a whole shard of images would be in memory.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        features = datasets.Features.from_arrow_schema(file.schema_arrow)
        columns = [name for name in ("id", "image", "label", *KNOWN) if name in features]
        rows = (row for batch in file.iter_batches(BATCH, columns=columns) for row in batch.to_pylist())
        for number, row in enumerate(rows):
            label = features["label"].int2str(row["label"])
            yield _picture({"id": f"{path.name}/{number}", **row, "label": label}, split)
