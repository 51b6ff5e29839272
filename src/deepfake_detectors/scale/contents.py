"""Which images of a run have the same content, in whatever unit they are.

Every image is read once for its SHA-256. The digests are dealt into buckets by their first bytes, on disk, so that
equal ones meet in one bucket and only one bucket is in memory at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from deepfake_detectors.outputs import opened_whole
from deepfake_detectors.scale.units import Unit

__all__ = ["ContentFolder", "Repeats", "find_repeats", "read_contents"]

CONTENT_FOLDER = "contents"
DIGEST_BYTES = 32
NAMES = ("utf-8", "surrogatepass")
RECORD = np.dtype([("digest", f"S{DIGEST_BYTES}"), ("open", "?"), ("unit", "<i8"), ("place", "<i8")])
BUCKET_BYTES, MOST_BUCKETS = 2**27, 500  # records of a bucket in memory; open files

Digests = Sequence[bytes | None]


def read_contents(unit: Unit) -> Any:
    """Return `id`, `source` and `sha256` (32 bytes, null where the image cannot be read) of a unit's images.

    Returns:
        A `pyarrow.Table`, in the order of the unit.
    """
    import pyarrow as pa

    columns: dict[str, list[bytes | None]] = {"id": [], "source": [], "sha256": []}
    for _, entry in unit.stretch.read():
        # A byte of a file name that is not UTF-8 stays what it is.
        columns["id"].append(entry.id.encode(*NAMES))
        columns["source"].append(entry.source.encode(*NAMES))
        content = entry.content
        columns["sha256"].append(sha256(content).digest() if isinstance(content, (bytes, bytearray)) else None)
    return pa.table({name: pa.array(values, pa.binary()) for name, values in columns.items()})


class ContentFolder:
    """What `read_contents` found, in a folder of the output, until the run is finished.

    Args:
        output: of the run.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output / CONTENT_FOLDER

    def keep(self, unit: Unit, table: Any) -> None:
        """Write the contents of a unit, whole or not at all."""
        import pyarrow.feather as feather

        self.folder.mkdir(exist_ok=True)
        with opened_whole(self._path(unit), "wb") as file:
            feather.write_feather(table, file, compression="zstd")

    def lacks(self, unit: Unit) -> bool:
        """Return whether a unit has not been read."""
        return not self._path(unit).is_file()

    def digests(self, unit: Unit) -> list[bytes | None]:
        """Return the SHA-256 of each image of a unit."""
        import pyarrow.feather as feather

        return feather.read_table(self._path(unit), columns=["sha256"])["sha256"].to_pylist()

    def rows(self, unit: Unit) -> list[dict[str, Any]]:
        """Return `id`, `source` and `sha256` of each image of a unit, as rows of verdicts have them."""
        import pyarrow.feather as feather

        return [
            {
                "id": row["id"].decode(*NAMES),
                "source": row["source"].decode(*NAMES),
                "sha256": None if row["sha256"] is None else row["sha256"].hex(),
            }
            for row in feather.read_table(self._path(unit)).to_pylist()
        ]

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, unit: Unit) -> Path:
        return self.folder / f"{unit.key}.arrow"


class Repeats:
    """Images whose content is that of another one, by unit.

    Args:
        files: each holds `(4, n)` int64, sorted by unit: unit and place of an image, and unit and place of the one
            that is judged in its stead.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._parts = [np.load(file, mmap_mode="r") for file in files]

    def of(self, unit: Unit) -> dict[int, tuple[int, int]]:
        """Return place -> unit and place of the image that is judged in its stead."""
        found: dict[int, tuple[int, int]] = {}
        for part in self._parts:
            low, high = np.searchsorted(part[0], [unit.index, unit.index + 1])
            found |= {int(place): (int(index), int(first)) for _, place, index, first in part[:, low:high].T}
        return found


def find_repeats(contents: Iterator[tuple[Unit, bool, Digests]], total: int, folder: Path) -> Repeats:
    """Find content that occurs more than once.

    Args:
        contents: units, whether each still has to be judged, and the SHA-256 of each of its images.
        total: how many images there are.
        folder: for the buckets.

    Returns:
        The repeated images of the units that still have to be judged. Judged is the image of a finished unit, where
        there is one with this content, else the first one.
    """
    folder.mkdir(exist_ok=True)
    count = min(MOST_BUCKETS, 1 + total * RECORD.itemsize // BUCKET_BYTES)
    files = [(folder / f"bucket-{number:03d}").open("wb") for number in range(count)]
    try:
        for unit, still_open, digests in contents:
            records = np.array(
                [
                    (digest, still_open, unit.index, place)
                    for place, digest in enumerate(digests)
                    if digest is not None
                ],
                dtype=RECORD,
            )
            buckets = records["digest"].astype("S4").view(">u4") % count
            for number in np.unique(buckets):
                files[number].write(records[buckets == number].tobytes())
    finally:
        for file in files:
            file.close()
    found = []
    for number, file in enumerate(files):
        path = folder / f"repeats-{number:03d}.npy"
        path.unlink(missing_ok=True)  # an earlier one may still be mapped
        np.save(path, _repeats_in(np.fromfile(file.name, RECORD)))
        Path(file.name).unlink()
        found.append(path)
    return Repeats(found)


def _repeats_in(records: np.ndarray) -> np.ndarray:
    """The repeats of a bucket, `(4, n)`; see `Repeats`."""
    records = records[np.lexsort([records[name] for name in ("place", "unit", "open", "digest")])]
    begins = np.r_[True, records["digest"][1:] != records["digest"][:-1]][: len(records)]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(records)), 0))
    chosen = np.flatnonzero(~begins & records["open"])
    repeats, judged = records[chosen], records[first[chosen]]
    order = np.lexsort([repeats["place"], repeats["unit"]])
    return np.stack([part[name][order] for part in (repeats, judged) for name in ("unit", "place")])
