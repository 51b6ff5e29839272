"""Convert raw files to Parquet files that contain the images, and read them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfake_detectors.data.loading import LIMIT, files_digest, units_state
from deepfake_detectors.data.registry import DATASETS, open_builder
from deepfake_detectors.data.row_tables import row_tables
from deepfake_detectors.files import read_json_object
from deepfake_detectors.outputs import LOCK_FILES, folder_lock, refuse_inputs, write_json

if TYPE_CHECKING:
    import datasets

    from deepfake_detectors.dataset_scripts._builder import Finding, RawBuilder, Unit

__all__ = [
    "BuildResult",
    "BuiltConfig",
    "build_dataset",
    "find_builds",
    "read_build",
]

STATE_FILE = ".build.json"  # hidden, so that loading the folder does not treat it as data
SHARDS = "{split}-?????-of-?????.parquet"
ROW_GROUP = 100  # rows per row group: images are large, and streaming reads whole groups
MEGABYTE = 2**20
REMEDY = "Write it with build_dataset(dataset, output)."


@dataclass(frozen=True)
class BuildResult:
    """What `build_dataset` wrote.

    Attributes:
        folder: with the shards; `datasets.load_dataset` reads it.
        rows: rows per split.
        built: the splits that were written now; the others were already finished.
        findings: what was noticed about the raw files.
    """

    folder: Path
    rows: dict[str, int]
    built: tuple[str, ...]
    findings: list[Finding]


def build_dataset(
    dataset: str | RawBuilder,
    output: str | Path,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    *,
    overwrite: bool = False,
    shard_size: float = 500,
    max_pixels: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> BuildResult:
    """Write every split as Parquet shards with the images embedded, into `<output>/<config name>/`.

    A split is written to a temporary folder and moved when it is complete. A second call skips finished splits if the
    builder, its options and the files it reads have not changed since (name, size, modification time). Outdated shards
    are replaced when the new split is complete, so a failure keeps the earlier build. Files that this function did not
    write are never removed. The terms of the data (`DATASETS[dataset].terms`) also apply to what is written.

    Args:
        dataset: a key of `DATASETS`, or a builder from `make_builder`, which has `data_dir`, `config` and `options`
            already.
        output: folder to write.
        data_dir, config, options: as in `make_builder`.
        overwrite: build finished splits again, also with different options.
        shard_size: megabytes (2**20 bytes); a shard ends when it is larger than this.
        max_pixels: width times height of an image that is decoded, by default 100 million. Does not affect finished
            splits.
        progress: called with split, rows since the last call, and rows expected (an upper bound for clips).

    Raises:
        ValueError: for raw files that cannot be read or that change during the build; for an output folder with
            another build, with Parquet files that this function did not write, with the raw files, or that another
            process is writing; and as `make_builder`.
        FileNotFoundError: for missing raw files.
        ImportError: if `datasets` is not installed.
    """
    if not shard_size > 0:
        raise ValueError(f"`shard_size` is {shard_size}, expected a number of megabytes above 0.")
    builder = open_builder(dataset, data_dir, config, options, max_pixels)
    folder = Path(output) / builder.config.name
    if (raw := builder.config.data_dir) is not None:
        refuse_inputs([folder], [raw], inside=True)
    splits = builder.find_splits()
    BuildState.open(builder, folder, overwrite)  # raises before anything is written
    with folder_lock(folder):
        return _build(builder, folder, splits, overwrite, shard_size, progress)


def _build(
    builder: Any,
    folder: Path,
    splits: dict[str, list[Unit]],
    overwrite: bool,
    shard_size: float,
    progress: Callable[[str, int, int], None] | None,
) -> BuildResult:
    state = BuildState.open(builder, folder, overwrite)
    sources = {split: units_state(builder, units) for split, units in splits.items()}
    stale = [split for split in splits if overwrite or not state.is_current(split, sources[split].fingerprint)]
    if state.new:
        state.write(complete=False)  # from now on the folder is ours
    for split in stale:
        advance = _advance(progress, split, sum(unit.rows for unit in splits[split]))
        advance(0)
        partial = folder / f".{split}.partial"
        rows, shards = _write_shards(builder, split, splits[split], partial, shard_size * MEGABYTE, advance)
        if files_digest(splits[split]) != sources[split].files:
            shutil.rmtree(partial)
            raise ValueError(
                f"Files of {builder.config.data_dir} changed while {split} was being built; build it again."
            )
        state.swap_in(split, rows, shards, partial, sources[split].fingerprint)
    for split in sorted(set(state.splits) - set(splits)):  # no longer among the raw files
        state.drop(split)
    state.write(complete=True)
    return BuildResult(
        folder, {split: state.splits[split]["rows"] for split in splits}, tuple(stale), builder.findings
    )


def _advance(progress: Callable[[str, int, int], None] | None, split: str, expected: int) -> Callable[[int], None]:
    def advance(rows: int) -> None:
        if progress is not None:
            progress(split, rows, expected)

    return advance


@dataclass
class BuildState:
    """The state file of a folder: which build it contains, and what each of its splits was built from.

    Attributes:
        folder: with the shards.
        builder, version, options: of the build.
        splits: split -> `rows`, `files`, their sizes in `bytes`, and the fingerprint of the raw files in `source`.
        new: whether there was no state file yet.
    """

    folder: Path
    builder: str
    version: str
    options: dict[str, Any]
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    new: bool = True

    @classmethod
    def open(cls, builder: Any, folder: Path, overwrite: bool) -> BuildState:
        """Return the state of a build into `folder`, with the splits that an earlier one left there.

        Raises:
            ValueError: for a folder that contains something else.
        """
        version = str(builder.config.version or builder.VERSION)
        state = cls(folder, type(builder).__name__, version, _chosen_options(builder))
        before, torn = {}, False
        if (folder / STATE_FILE).is_file():
            try:
                before = read_state(folder)
            except ValueError as error:
                if not overwrite:
                    raise ValueError(f"{error} Set `overwrite` to build it again.") from error
                torn = True
        if before:
            state.splits, state.new = dict(before["splits"]), False
            if not overwrite:
                state._require_same_build(before)
        elif folder.exists() and not overwrite and any(_foreign(folder)):
            raise ValueError(f"{folder} is not empty and was not written by build_dataset; choose another `output`.")
        if torn:  # which shards were ours is not known any more; their names are those that we give
            for path in folder.glob(SHARDS.format(split="*")):
                split = path.name.rsplit("-", 3)[0]
                unknown = {"rows": 0, "files": [], "bytes": [], "source": ""}
                state.splits.setdefault(split, unknown)["files"].append(path.name)
        ours = {name for done in state.splits.values() for name in done["files"]}
        foreign = sorted(path.name for path in folder.glob(SHARDS.format(split="*")) if path.name not in ours)
        if foreign:
            raise ValueError(
                f"{folder} contains {len(foreign)} Parquet file(s) that build_dataset did not write, such as "
                f"{foreign[0]}; move them away, or choose another `output`."
            )
        return state

    def _require_same_build(self, before: dict[str, Any]) -> None:
        if (before.get("builder"), before.get("version")) != (self.builder, self.version):
            raise ValueError(
                f"{self.folder} contains a build of {before.get('builder')} {before.get('version')}; overwrite it, or "
                "choose another `output`."
            )
        if self.splits and before.get("options", self.options) != self.options:
            raise ValueError(
                f"{self.folder} contains a build with the options {before['options']}, not {self.options}; set "
                "`overwrite` to build it again with these, or choose another `output`."
            )

    def is_current(self, split: str, source: str) -> bool:
        """Return whether a split is finished, was built from the current raw files, and its files are complete."""
        done = self.splits.get(split)
        return done is not None and done["source"] == source and done.get("bytes") == self._sizes(done["files"])

    def swap_in(self, split: str, rows: int, shards: int, partial: Path, source: str) -> None:
        """Move the shards of a finished split from `partial` into the folder, where they replace earlier ones."""
        names = [f"{split}-{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]
        replaced = self.splits.get(split, {"files": []})["files"]
        # Listed before they are moved, so that an interruption never leaves unlisted files.
        self.splits[split] = {"rows": rows, "files": sorted({*names, *replaced}), "bytes": [], "source": ""}
        self.write(complete=False)
        for number, name in enumerate(names):
            (partial / f"{number:05d}").replace(self.folder / name)
        partial.rmdir()
        self._remove(set(replaced) - set(names))
        self.splits[split] = {"rows": rows, "files": names, "bytes": self._sizes(names), "source": source}
        self.write(complete=False)

    def drop(self, split: str) -> None:
        """Remove the shards of a split."""
        self._remove(set(self.splits.pop(split)["files"]))

    def write(self, complete: bool) -> None:
        """Write the state file under another name and rename it, so that readers never see half of it."""
        fields = {"builder": self.builder, "version": self.version, "options": self.options, "splits": self.splits}
        write_json(self.folder / STATE_FILE, {**fields, "complete": complete}, indent=1)

    def _remove(self, names: set[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _sizes(self, names: list[str]) -> list[int | None]:
        paths = [self.folder / name for name in names]
        return [path.stat().st_size if path.is_file() else None for path in paths]


def _foreign(folder: Path) -> Iterator[Path]:
    """The contents of a folder except the lock, and except half a state file of a build that was killed at its
    start."""
    return (path for path in folder.iterdir() if path.name not in (*LOCK_FILES, f".{STATE_FILE}.part"))


def read_state(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's state file.

    Raises:
        OSError: if there is none.
        ValueError: if it is not one that `build_dataset` wrote.
    """
    state = read_json_object(folder / STATE_FILE)
    splits = state.get("splits")
    if not isinstance(splits, dict) or not all(
        isinstance(done, dict) and isinstance(done.get("files"), list) and {"rows", "source"} <= done.keys()
        for done in splits.values()
    ):
        raise ValueError(f"{folder / STATE_FILE} is not a state file written by build_dataset; choose another folder.")
    return state


def _chosen_options(builder: Any) -> dict[str, Any]:
    """Return the user's choices in the config, as JSON restores them."""
    import datasets

    inherited = {item.name for item in dataclasses.fields(datasets.BuilderConfig)} | {LIMIT}
    chosen = {name: value for name, value in dataclasses.asdict(builder.config).items() if name not in inherited}
    return dict(json.loads(json.dumps(chosen, default=str)))


def _write_shards(
    builder: Any,
    split: str,
    units: list[Unit],
    partial: Path,
    shard_bytes: float,
    advance: Callable[[int], None],
) -> tuple[int, int]:
    """Write the shards of one split to `partial`, named by number; returns the numbers of rows and of shards."""
    import pyarrow.parquet as pq

    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    rows, shards = 0, 0
    writer: Any = None
    sink: Any = None
    try:
        for table in row_tables(builder, split, units, ROW_GROUP):
            if sink is not None and sink.tell() > shard_bytes:
                writer.close()
                sink.close()
                sink = None
            if sink is None:
                sink = (partial / f"{shards:05d}").open("wb")
                writer = pq.ParquetWriter(sink, builder.info.features.arrow_schema)
                shards += 1
            writer.write_table(table)
            rows += table.num_rows
            advance(table.num_rows)
    finally:
        if sink is not None:
            writer.close()
            sink.close()
    return rows, shards


@dataclass(frozen=True)
class BuiltConfig:
    """One config of a dataset as Parquet.

    Attributes:
        folder: with the shards.
        dataset: key of `DATASETS`.
        version: of the builder that wrote it.
        config: name of the config.
        features: schema of the rows.
        splits: split -> its shards, in order.
        counts: rows per `split`, `label` and `manipulation`.
    """

    folder: Path
    dataset: str
    version: str
    config: str
    features: datasets.Features
    splits: dict[str, list[Path]]
    counts: list[dict[str, Any]]

    def info(self) -> datasets.DatasetInfo:
        """Return what the Hub shows about it: features, and rows and bytes per split."""
        import datasets
        import pyarrow.parquet as pq

        split_infos = datasets.SplitDict(dataset_name=self.dataset)
        for name, shards in self.splits.items():
            metadata = [pq.read_metadata(path) for path in shards]
            rows = sum(item.num_rows for item in metadata)
            size = sum(item.row_group(i).total_byte_size for item in metadata for i in range(item.num_row_groups))
            split_infos.add(datasets.SplitInfo(name, num_bytes=size, num_examples=rows))
        download = sum(path.stat().st_size for shards in self.splits.values() for path in shards)
        return datasets.DatasetInfo(
            features=self.features,
            config_name=self.config,
            splits=split_infos,
            download_size=download,
            dataset_size=sum(item.num_bytes for item in split_infos.values()),
        )


def find_builds(folder: str | Path) -> list[BuiltConfig]:
    """Return the configs in a folder: itself, if it was written as one, else those directly below it.

    Raises:
        ValueError: for a folder without configs, with configs of several datasets, or with an unfinished one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder. {REMEDY}")
    places = [folder] if (folder / STATE_FILE).is_file() else sorted(folder.glob(f"*/{STATE_FILE}"))
    builds = [read_build(place if place.is_dir() else place.parent) for place in places]
    if not builds:
        raise ValueError(f"{folder} contains nothing that build_dataset wrote (no {STATE_FILE}). {REMEDY}")
    if len(sets := sorted({build.dataset for build in builds})) > 1:
        raise ValueError(f"{folder} contains several datasets ({', '.join(sets)}); publish them one by one.")
    return builds


def read_build(folder: Path) -> BuiltConfig:
    """Return one config.

    Raises:
        OSError: for a folder without a state file.
        ValueError: for a build that is not finished, or of an unknown builder.
    """
    import datasets
    import pyarrow.parquet as pq

    state = read_state(folder)
    splits = {name: [folder / file for file in done["files"]] for name, done in state["splits"].items()}
    absent = [path.name for shards in splits.values() for path in shards if not path.is_file()]
    if not state.get("complete") or absent or not splits:
        raise ValueError(
            f"The build in {folder} is not finished{': missing ' + ', '.join(absent[:3]) if absent else ''}. Build it "
            "again; build_dataset continues where it stopped."
        )
    builder = state.get("builder")
    names = [name for name, row in DATASETS.items() if row.builder.partition(":")[2] == builder]
    if not names:
        raise ValueError(f"{folder} was built by {builder}, which this package does not know.")
    features = datasets.Features.from_arrow_schema(pq.read_schema(next(iter(splits.values()))[0]))
    counts = _count_rows(splits, features)
    return BuiltConfig(folder, names[0], str(state.get("version")), folder.name, features, splits, counts)


def _count_rows(splits: dict[str, list[Path]], features: datasets.Features) -> list[dict[str, Any]]:
    """Count rows per split, label and manipulation; splits in their order, real before fake."""
    import pyarrow.parquet as pq

    counts: Counter[tuple[str, str, str]] = Counter()
    for split, shards in splits.items():
        for path in shards:
            for batch in pq.ParquetFile(path).iter_batches(columns=["label", "manipulation"]):
                labels = (features["label"].int2str(label) for label in batch["label"].to_pylist())
                counts.update(
                    (split, label, method or "")
                    for label, method in zip(labels, batch["manipulation"].to_pylist(), strict=True)
                )
    order = list(splits)
    in_order = sorted(counts.items(), key=lambda item: (order.index(item[0][0]), item[0][1] != "real", item))
    return [
        {"split": split, "label": label, "manipulation": method, "rows": count}
        for (split, label, method), count in in_order
    ]
