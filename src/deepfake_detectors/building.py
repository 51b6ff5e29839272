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

from deepfake_detectors.builders import builder_class, data_folder

if TYPE_CHECKING:
    import datasets

__all__ = ["CheckResult", "builder_class", "check", "list_items", "make_builder", "write_parquet"]

STATE_FILE = ".build.json"  # hidden, so that loading the folder does not take it for data
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
        data_dir: see `deepfake_detectors.builders.data_folder`.
        config: config name; the builder's default if `None`.
        options: further fields of the config.

    Raises:
        ValueError: for an unknown data set, config or field.
        FileNotFoundError: if there is no such folder.
    """
    kind = builder_class(dataset)
    folder = data_folder(dataset, data_dir).resolve()
    fields = {item.name for item in dataclasses.fields(kind.BUILDER_CONFIG_CLASS)}
    unknown = sorted(set(options or {}) - fields)
    if unknown:
        raise ValueError(
            f"{dataset} has no option {', '.join(unknown)}; see: deepfake-detectors dataset info {dataset}"
        )
    return kind(config_name=config, data_dir=str(folder), **(options or {}))


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
        for split, items in list_items(builder).items():
            for item in items:
                columns = item if isinstance(item, dict) else item.columns
                key = (split, columns["label"], columns["manipulation"] or "")
                result.units[key] += 1
                result.rows[key] += 1 if isinstance(item, dict) else item.rows
            if decode and not isinstance(items[0], dict):
                for unit in items:
                    result.findings += _decode(builder, unit, progress)
    except (ValueError, OSError) as error:
        result.findings.append(("error", str(error)))
    found = [(finding.level, finding.message) for finding in getattr(builder, "findings", [])]
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


def list_items(builder: Any) -> dict[str, list[Any]]:
    """The units of each split, or the finished rows of a builder that has no units."""
    if hasattr(builder, "inspect"):
        return builder.inspect(Path(builder.config.data_dir))
    return {str(generator.name): generator.gen_kwargs["rows"] for generator in _generators(builder)}


def _generators(builder: Any) -> list[Any]:
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

    A split is written beside and moved in when it is whole. A second call with the same builder, options and list of
    raw files skips the splits that are done; new content under an old name is not seen: pass `overwrite`.
    `datasets.load_dataset` reads the folder.

    Args:
        builder: from `make_builder`.
        output: folder to write.
        overwrite: build finished splits again.
        shard_bytes: a shard ends when it is larger than this.
        progress: called with split, rows since the last call, and rows expected (an upper bound for clips).

    Returns:
        Rows per split.

    Raises:
        ValueError: for raw files that cannot be read, or an output folder of another build.
        FileNotFoundError: for missing raw files.
    """
    folder = Path(output) / builder.config.name
    state_path = folder / STATE_FILE
    identity = {"builder": type(builder).__name__, "version": str(builder.config.version or builder.VERSION)}
    state: dict[str, Any] = {**identity, "splits": {}}
    generators = _generators(builder)
    if state_path.is_file() and not overwrite:
        state = json.loads(state_path.read_text(encoding="utf-8"))
        if {name: state.get(name) for name in identity} != identity:
            raise ValueError(
                f"{folder} holds a build of {state.get('builder')} {state.get('version')}; overwrite it, or choose "
                "another output."
            )
    elif folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} is not empty and was not written by this command; choose another output.")
    folder.mkdir(parents=True, exist_ok=True)
    state_path.write_text(json.dumps(state, indent=1), encoding="utf-8")  # from now on the folder is ours
    done = {}
    for generator in generators:
        split = str(generator.name)
        items = next(iter(generator.gen_kwargs.values()))
        digest = hashlib.sha256(json.dumps(items, default=str).encode()).hexdigest()
        finished = state["splits"].get(split)
        whole = finished and all((folder / name).is_file() for name in finished["files"])
        if whole and finished["source"] == digest:
            done[split] = finished["rows"]
            continue
        expected = sum(1 if isinstance(item, dict) else item.rows for item in items)
        if progress is not None:
            progress(split, 0, expected)
        rows, names = _write_split(builder, generator, folder, shard_bytes, _counting(progress, split, expected))
        done[split] = rows
        state["splits"][split] = {"rows": rows, "files": names, "source": digest}
        state_path.write_text(json.dumps(state, indent=1), encoding="utf-8")
    return done


def _counting(progress: Callable[[str, int, int], None] | None, split: str, expected: int) -> Callable[[int], None]:
    return lambda rows: progress(split, rows, expected) if progress is not None else None


def _write_split(
    builder: Any, generator: Any, folder: Path, shard_bytes: int, advance: Callable[[int], None]
) -> tuple[int, list[str]]:
    """Shards of one split; they appear under their names only when all are written."""
    import pyarrow.parquet as pq

    split = str(generator.name)
    partial = folder / f".{split}.partial"
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
    for stale in folder.glob(f"{split}-?????-of-?????.parquet"):
        stale.unlink()
    names = [f"{split}-{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]
    for number, name in enumerate(names):
        (partial / f"{number:05d}").rename(folder / name)
    partial.rmdir()
    return rows, names


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
