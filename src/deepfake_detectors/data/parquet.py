"""From raw files to Parquet with the pictures inside: what is there, is it whole, write it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfake_detectors.data.registry import builder_class, config_options, data_folder

if TYPE_CHECKING:
    import datasets

    from deepfake_detectors.dataset_scripts.common import Unit

__all__ = [
    "CheckResult",
    "builder_class",
    "check",
    "make_builder",
    "split_generators",
    "units_fingerprint",
    "write_parquet",
]

STATE_FILE = ".build.json"  # hidden, so that loading the folder does not take it for data
SHARDS = "{split}-?????-of-?????.parquet"
ROW_GROUP = 100  # rows per row group: pictures are large, and streaming reads whole groups


def make_builder(
    dataset: str,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
) -> Any:
    """The builder of a data set over the raw files in `data_dir` (or in the data set's folder in `$DEEPFAKE_DATA`).

    Args:
        dataset: a key of `BUILDERS`.
        data_dir: see `deepfake_detectors.data.registry.data_folder`.
        config: config name; the builder's default if `None`.
        options: further fields of the config.

    Raises:
        ValueError: for an unknown data set or config, or an option that `config_options` refuses.
        FileNotFoundError: if there is no such folder.
    """
    kind = builder_class(dataset)
    folder = data_folder(dataset, data_dir).resolve()
    return kind(config_name=config, data_dir=str(folder), **config_options(dataset, options))


@dataclass
class CheckResult:
    """What `check` found.

    Attributes:
        rows: rows per (split, label, manipulation).
        units: pictures or videos per (split, label, manipulation).
        findings: (level, message), the level being error, warning or note.
    """

    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    units: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    findings: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(level != "error" for level, _ in self.findings)


def check(builder: Any, decode: bool = False, progress: Callable[[int], None] | None = None) -> CheckResult:
    """Compare the raw files with what is published of them, without writing anything.

    Args:
        builder: from `make_builder`.
        decode: also decode every picture.
        progress: called with the number of rows decoded since the last call.

    Returns:
        Counts and findings. A copy that the builder refuses gives its error as a finding.
    """
    result = CheckResult()
    try:
        for split, units in builder.inspect(Path(builder.config.data_dir)).items():
            for unit in units:
                key = (split, unit.columns["label"], unit.columns["manipulation"] or "")
                result.units[key] += 1
                result.rows[key] += unit.rows
                if decode:
                    result.findings += _decode(builder, unit, progress)
    except (ValueError, OSError) as error:
        result.findings.append(("error", str(error)))
    found = [(finding.level, finding.message) for finding in builder.findings]
    result.findings = found + result.findings
    return result


def _decode(builder: Any, unit: Any, progress: Callable[[int], None] | None) -> list[tuple[str, str]]:
    try:
        for _ in builder.examples(unit):
            if progress is not None:
                progress(1)
    except (ValueError, OSError) as error:
        return [("error", str(error))]
    return []


def split_generators(builder: Any) -> list[Any]:
    """One generator per split, with the units of the raw files in its `gen_kwargs`; nothing is decoded."""
    import datasets

    return builder._split_generators(
        datasets.DownloadManager(dataset_name=builder.dataset_name, data_dir=builder.config.data_dir)
    )


def write_parquet(
    builder: Any,
    output: str | Path,
    overwrite: bool = False,
    shard_bytes: int = 500 * 2**20,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, int]:
    """Write every split as Parquet shards with the pictures embedded, into `<output>/<config name>/`.

    A split is written beside and moved in when it is whole. A second call skips the splits that are done if neither
    the builder, its options, nor any file they were read from has changed since (name, size, time of change). Shards
    that are out of date are replaced when the new split is whole, so that a failure leaves the build that was there;
    nothing is removed that this function did not write.
    `datasets.load_dataset` reads the folder.

    Args:
        builder: from `make_builder`.
        output: folder to write.
        overwrite: build finished splits again, also with other options.
        shard_bytes: a shard ends when it is larger than this.
        progress: called with split, rows since the last call, and rows expected (an upper bound for clips).

    Returns:
        Rows per split.

    Raises:
        ValueError: for raw files that cannot be read or change meanwhile, or an output folder of another build or with
            Parquet files that this function did not write.
        FileNotFoundError: for missing raw files.
    """
    folder = Path(output) / builder.config.name
    state_path = folder / STATE_FILE
    identity = {"builder": type(builder).__name__, "version": str(builder.config.version or builder.VERSION)}
    options = _options(builder)
    generators = split_generators(builder)
    before: dict[str, Any] = {}
    if state_path.is_file():
        before = json.loads(state_path.read_text(encoding="utf-8"))
    elif folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} is not empty and was not written by this command; choose another output.")
    if before and not overwrite:
        if {name: before.get(name) for name in identity} != identity:
            raise ValueError(
                f"{folder} holds a build of {before.get('builder')} {before.get('version')}; overwrite it, or choose "
                "another output."
            )
        if before["splits"] and before.get("options", options) != options:
            raise ValueError(
                f"{folder} holds a build with the options {before['options']}, not {options}; pass --overwrite to "
                "build it again with these, or choose another output."
            )
    old: dict[str, Any] = before.get("splits", {})
    ours = {name for done in old.values() for name in done["files"]}
    foreign = sorted(path.name for path in folder.glob(SHARDS.format(split="*")) if path.name not in ours)
    if foreign:
        raise ValueError(
            f"{folder} holds {len(foreign)} Parquet file(s) that this command did not write, such as {foreign[0]}; "
            "move them away, or choose another output."
        )
    folder.mkdir(parents=True, exist_ok=True)
    sources = {
        str(generator.name): units_fingerprint(builder, generator.gen_kwargs["units"]) for generator in generators
    }
    current = {split for split, done in old.items() if not overwrite and _is_current(folder, done, sources.get(split))}
    state: dict[str, Any] = {**identity, "options": options, "splits": dict(old)}
    if not before:
        _write_state(state_path, state, complete=False)  # from now on the folder is ours
    for generator in generators:
        split = str(generator.name)
        if split in current:
            continue
        units = generator.gen_kwargs["units"]
        expected = sum(unit.rows for unit in units)
        if progress is not None:
            progress(split, 0, expected)
        partial = folder / f".{split}.partial"
        rows, names = _write_split(builder, generator, partial, shard_bytes, _counting(progress, split, expected))
        if units_fingerprint(builder, units) != sources[split]:
            shutil.rmtree(partial)
            raise ValueError(f"Files of {builder.config.data_dir} changed while {split} was built; build again.")
        # Listed before they are there, so that an interruption leaves no file that nobody knows.
        replaced = old.get(split, {"files": []})["files"]
        state["splits"][split] = {"rows": rows, "files": sorted({*names, *replaced}), "bytes": [], "source": ""}
        _write_state(state_path, state, complete=False)
        for number, name in enumerate(names):
            (partial / f"{number:05d}").replace(folder / name)
        partial.rmdir()
        _remove(folder, set(replaced) - set(names))
        sizes = _sizes(folder, names)
        state["splits"][split] = {"rows": rows, "files": names, "bytes": sizes, "source": sources[split]}
        _write_state(state_path, state, complete=False)
    for split in sorted(set(old) - set(sources)):  # no longer among the raw files
        _remove(folder, set(old[split]["files"]))
        del state["splits"][split]
    _write_state(state_path, state, complete=True)
    return {str(generator.name): state["splits"][str(generator.name)]["rows"] for generator in generators}


def _options(builder: Any) -> dict[str, Any]:
    """What the user chose of the config, as JSON gives it back."""
    import datasets

    inherited = {item.name for item in dataclasses.fields(datasets.BuilderConfig)}
    chosen = {name: value for name, value in dataclasses.asdict(builder.config).items() if name not in inherited}
    return dict(json.loads(json.dumps(chosen, default=str)))


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def units_fingerprint(builder: Any, units: list[Unit]) -> str:
    """What a split depends on: units, options and features, and size and times of every file that will be read."""
    options = dataclasses.asdict(builder.config)
    digest = hashlib.sha256(json.dumps([options, str(builder.info.features)], default=str).encode())
    for unit in units:
        digest.update(json.dumps(unit, default=str).encode())
        for path in unit.files():
            status = path.stat()
            # The second time also moves where a copy has been given the time of its original.
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def _is_current(folder: Path, done: dict[str, Any], source: str | None) -> bool:
    """Whether a finished split was made of what is there now, and its files are whole."""
    return done["source"] == source and done.get("bytes") == _sizes(folder, done["files"])


def _sizes(folder: Path, names: list[str]) -> list[int | None]:
    return [(folder / name).stat().st_size if (folder / name).is_file() else None for name in names]


def _write_state(path: Path, state: dict[str, Any], complete: bool) -> None:
    path.write_text(json.dumps({**state, "complete": complete}, indent=1), encoding="utf-8")


def _counting(progress: Callable[[str, int, int], None] | None, split: str, expected: int) -> Callable[[int], None]:
    return lambda rows: progress(split, rows, expected) if progress is not None else None


def _write_split(
    builder: Any, generator: Any, partial: Path, shard_bytes: int, advance: Callable[[int], None]
) -> tuple[int, list[str]]:
    """Shards of one split, written to `partial` by number; returns the rows and the names that they should get."""
    import pyarrow.parquet as pq

    split = str(generator.name)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    rows, shards = 0, 0
    writer: Any = None
    sink: Any = None
    try:
        for table in _tables(builder, generator):
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
    return rows, [f"{split}-{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]


def _tables(builder: Any, generator: Any) -> Iterator[Any]:
    """Batches of a split as Arrow tables, with the bytes of the pictures."""
    import pyarrow as pa
    from datasets.table import embed_table_storage

    features: datasets.Features = builder.info.features
    seen: set[str] = set()
    batch: list[dict[str, Any]] = []

    def table() -> Any:
        plain = pa.Table.from_pylist(batch, schema=features.arrow_schema)
        return embed_table_storage(plain)

    for key, row in builder._generate_examples(**generator.gen_kwargs):
        if key in seen:
            raise ValueError(f"{generator.name}: the id {key!r} occurs twice; keep one of the two files.")
        seen.add(key)
        batch.append(features.encode_example({name: row.get(name) for name in features}))
        if len(batch) == ROW_GROUP:
            yield table()
            batch = []
    if batch:
        yield table()
