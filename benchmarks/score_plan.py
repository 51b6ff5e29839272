"""What `score` spends on a source beside judging: listing it, cutting units, and looking over what is done.

    python benchmarks/score_plan.py --images 100000 --units 1000

CPU microseconds and bytes of the driver's memory for each image listed, and CPU milliseconds for each finished unit of
a run that has nothing left to do. The images are empty: nothing is decoded here.
"""

import argparse
import statistics
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timing import hardware, seconds

from deepfake_detectors.scale.judging import Question
from deepfake_detectors.scale.passes import Passes
from deepfake_detectors.scale.sources import find_stretches
from deepfake_detectors.scale.units import UnitFolder, cut_units

ROWS = 1000  # of a unit, and of a row group
REPEATS = 3


def make_folder(folder: Path, images: int) -> None:
    for number in range(images):
        (folder / f"{number:07d}.jpg").touch()


def make_tar(folder: Path, images: int) -> None:
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for number in range(images):
            tar.addfile(tarfile.TarInfo(f"{number:07d}.jpg"))


def make_parquet(folder: Path, images: int) -> None:
    pq.write_table(pa.table({"image": pa.array([b""] * images)}), folder / "shard.parquet", row_group_size=ROWS)


def listing_row(name: str, make: Callable[[Path, int], None], images: int, work: Path) -> None:
    folder = work / name
    folder.mkdir()
    make(folder, images)

    def cut() -> list[Any]:
        return cut_units(find_stretches(folder, ROWS), "run")

    times = []
    for _ in range(REPEATS):
        start = seconds()
        units = cut()
        times.append((seconds() - start) / images)
    assert sum(unit.stretch.size for unit in units) == images
    del units
    tracemalloc.start()
    units = cut()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    cells = f"{1e6 * statistics.median(times):.2f} us | {held / images:.1f} bytes | {peak / images:.1f} bytes"
    print(f"| {name} | {images} | {len(units)} | {cells} |", flush=True)


def verdict_rows(unit: Any) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(unit.index)
    for place in range(unit.stretch.size):
        score = float(np.float32(generator.random()))
        yield {
            "id": f"shard-{unit.index:05d}.tar/{place:07d}.jpg",
            "source": f"images/shard-{unit.index:05d}.tar",
            "sha256": generator.bytes(32).hex(),
            "fake_probability": score,
            "label": "fake" if score > 0.5 else "real",
        }


def units_row(count: int, work: Path) -> None:
    source, output = work / "source", work / "verdicts"
    for folder in (source, output):
        folder.mkdir()
    make_parquet(source, count * ROWS)
    units = cut_units(find_stretches(source, ROWS), "run")
    store = UnitFolder(output)
    rows = [list(verdict_rows(unit)) for unit in units[:1]] * len(units)
    start = seconds()
    for unit, each in zip(units, rows, strict=True):
        store.commit(unit, each, ())
    written = (seconds() - start) / count

    def nothing(*_: Any) -> Iterator[Any]:
        raise RuntimeError("Something was left to do.")

    times = []
    for _ in range(REPEATS):
        start = seconds()
        Passes(store, units, nothing, Question(), units).run()
        times.append((seconds() - start) / count)
    size = statistics.mean((output / unit.file).stat().st_size for unit in units)
    manifest = (output / "manifest.parquet").stat().st_size
    print(
        f"| {count} | {1000 * written:.2f} ms | {1000 * statistics.median(times):.2f} ms | {size / ROWS:.1f} bytes "
        f"| {manifest / count:.1f} bytes |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="listed")
    parser.add_argument("--units", type=int, default=1000, help=f"finished, of {ROWS} images")
    options = parser.parse_args()
    print(f"{hardware()}\n")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        print("| source | images | units | CPU per image | memory per image | at its peak |\n" + "| --- " * 6 + "|")
        for name, make in (("folder of files", make_folder), ("WebDataset tar", make_tar), ("Parquet", make_parquet)):
            listing_row(name, make, options.images, work)
        print(
            "\n| units | write one | look over one | verdicts per image | manifest per unit |\n" + "| --- " * 5 + "|"
        )
        units_row(options.units, work)


if __name__ == "__main__":
    main()
