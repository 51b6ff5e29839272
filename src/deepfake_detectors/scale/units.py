"""Units of work: what each depends on, its file, and which of them are finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from deepfake_detectors.outputs import opened_whole
from deepfake_detectors.scale.sources import Stretch

__all__ = [
    "KEY_DIGITS",
    "MANIFEST_FILE",
    "MASK_FOLDER",
    "Unit",
    "UnitFolder",
    "cut_units",
    "mask_name",
    "verdict_schema",
]

MANIFEST_FILE = "manifest.parquet"
MASK_FOLDER = "masks"
KEY_DIGITS = 20


@dataclass(frozen=True)
class Unit:
    """A part of the source, and everything that its verdicts depend on.

    Attributes:
        index: place among the units.
        key: digest of the stretch's state and of the run; the same work has the same key.
        stretch: what is read.
    """

    index: int
    key: str
    stretch: Stretch

    @property
    def file(self) -> str:
        return f"unit-{self.index:06d}-{self.key}.parquet"


def cut_units(stretches: Sequence[Stretch], run: str) -> list[Unit]:
    """Return the units of a run.

    Args:
        stretches: of the source, in order.
        run: text with everything else that verdicts depend on: weights, version, options.
    """
    units, seen = [], set()
    for index, stretch in enumerate(stretches):
        key = sha256(f"{run}\n{stretch.state}".encode("utf-8", "surrogatepass")).hexdigest()[:KEY_DIGITS]
        if key in seen:
            raise ValueError(f"The source contains the same images twice: {stretch.state.splitlines()[0]}.")
        seen.add(key)
        units.append(Unit(index, key, stretch))
    return units


def mask_name(unit: Unit, place: int) -> str:
    """Return where in the output the mask of an image is."""
    return f"{MASK_FOLDER}/{unit.key}/{place:06d}.png"


def verdict_schema(extra: Sequence[str] = ()) -> Any:
    """Return the Arrow schema of a unit's file; `extra` names the columns beside those that every run has."""
    import pyarrow as pa

    kinds = {
        "explanation": pa.string(),
        "explanation_verdict": pa.string(),
        "mask": pa.string(),
        "head": pa.string(),
        "first_probability": pa.float64(),
        "second_probability": pa.float64(),
    }
    fixed = [
        ("id", pa.string()),
        ("source", pa.string()),
        ("sha256", pa.string()),
        ("fake_probability", pa.float64()),
        ("decision", pa.string()),
        ("label", pa.string()),
        ("error", pa.string()),
    ]
    return pa.schema([*fixed, *((name, kinds[name]) for name in extra)])


class UnitFolder:
    """The folder of finished units. One process writes it at a time; whoever calls holds its lock.

    Args:
        folder: exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sweep(self) -> None:
        """Remove what a killed process left half written."""
        for part in self.folder.rglob(".*.part"):
            part.unlink()

    def finished(self, units: Sequence[Unit]) -> dict[str, Path]:
        """Return key -> file of the complete units. Files that moved to another place in the order are renamed,
        and files of units that the source no longer has are left for `prune`."""
        import pyarrow.parquet as pq

        files = {path.stem.rpartition("-")[2]: path for path in self.folder.glob("unit-*.parquet")}
        found = {}
        for unit in units:
            path = files.get(unit.key)
            if path is None:
                continue
            try:
                whole = pq.read_metadata(path).num_rows == unit.stretch.size
            except (OSError, ValueError):  # cut by a machine that lost power; ArrowInvalid is a ValueError
                whole = False
            if not whole:
                path.unlink()
                continue
            if path.name != unit.file:
                path = path.rename(self.folder / unit.file)
            found[unit.key] = path
        return found

    def prune(self, units: Sequence[Unit]) -> int:
        """Remove the files of units that do not belong to this run, such as those of images that have since
        changed."""
        expected = {unit.file for unit in units}
        stale = [path for path in self.folder.glob("unit-*.parquet") if path.name not in expected]
        for path in stale:
            path.unlink()
        return len(stale)

    def commit(self, unit: Unit, rows: Sequence[Mapping[str, Any]], extra: Sequence[str]) -> Path:
        """Write the file of a unit, completely or not at all.

        Args:
            unit: as cut.
            rows: a dict for each of its entries, in order; missing values become null.
            extra: see `verdict_schema`.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if len(rows) != unit.stretch.size:
            raise RuntimeError(f"Unit {unit.index} has {unit.stretch.size} images, but {len(rows)} verdicts.")
        schema = verdict_schema(extra)
        columns = {name: [_clean(row.get(name)) for row in rows] for name in schema.names}
        path = self.folder / unit.file
        with opened_whole(path, "wb") as file:
            pq.write_table(pa.table(columns, schema=schema), file, compression="zstd")
        return path

    def write_manifest(self, facts: Sequence[Mapping[str, Any]]) -> None:
        """Write `manifest.parquet`: `unit`, `key`, `file`, `rows`, `errors` of every unit."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema(
            [
                ("unit", pa.int64()),
                ("key", pa.string()),
                ("file", pa.string()),
                ("rows", pa.int64()),
                ("errors", pa.int64()),
            ]
        )
        with opened_whole(self.folder / MANIFEST_FILE, "wb") as file:
            pq.write_table(pa.Table.from_pylist([dict(row) for row in facts], schema=schema), file)


def _clean(value: Any) -> Any:
    """A lone surrogate represents a byte of a file name that is not UTF-8, which Parquet cannot store."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
