"""Does building and linting a data set stay flat in memory, and how fast is it?

    python benchmarks/datasets.py                          # 20,000 frames as picture files: build, then lint
    python benchmarks/datasets.py --steps arrays --frames 2000    # frames of HDF5 clips, each encoded as PNG
    python benchmarks/datasets.py --ratio                  # against decoding alone; DD-VQA, too, in $DEEPFAKE_DATA

Writes synthetic frames in an official layout, then does each step in a process of its own, whose highest resident
memory the operating system reports (children included). Ends with 1 if a step needs more than --limit.

With --ratio, one process decodes every picture of the set once with Pillow, builds it and lints the build, in turn,
three times. The ratio is the CPU seconds of decoding by those of the other (user and system, threads and children
included, without imports), the median of the three.
"""

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

METHODS = ("Deepfakes", "FaceSwap", "NeuralTextures", "Face2Face")
FRAMES_PER_VIDEO = 100  # of the HDF5 layout, whose official test reader takes as many
STEPS = {
    "build": "build: JPEG files to Parquet",
    "lint": "lint: the same Parquet",
    "arrays": "build: HDF5 clips to Parquet",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000, help="how many, half of them fake (default 20000)")
    parser.add_argument("--side", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=["build", "lint"])
    parser.add_argument("--limit", type=int, default=1500, help="MB of memory that no step may exceed")
    parser.add_argument("--ratio", action="store_true", help="CPU seconds against those of decoding alone")
    parser.add_argument("--run", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        return run_step(arguments.run[0], Path(arguments.run[1]))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.ratio or {"build", "lint"} & set(arguments.steps):
            write_pictures(folder / "pictures", arguments.frames, arguments.side)
        if arguments.ratio:
            return compare_with_decoding(folder, arguments.frames, arguments.side)
        if "arrays" in arguments.steps:
            write_clips(folder / "clips", arguments.frames, arguments.side)
        print(f"{arguments.frames} frames of {arguments.side} x {arguments.side} pixels")
        print("| work | rows | seconds | rows per second | peak memory | of which imports |\n" + "| --- " * 6 + "|")
        return max([measure(step, folder, arguments.limit) for step in STEPS if step in arguments.steps])


def measure(step: str, folder: Path, limit: int) -> int:
    """Run a step in a new process and print its row; 1 if it needed too much memory."""
    command = [sys.executable, __file__, "--run", step, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # and not wait(): this one gives the peak
    if status:
        raise SystemExit(f"{step} failed")
    result = json.loads(told.splitlines()[-1])
    peak, base = usage.ru_maxrss * 1024 / 1e6, result["imports"] * 1024 / 1e6
    speed = result["rows"] / result["seconds"]
    cells = (
        STEPS[step],
        result["rows"],
        f"{result['seconds']:.0f}",
        f"{speed:.0f}",
        f"{peak:.0f} MB",
        f"{base:.0f} MB",
    )
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return int(peak > limit)


def run_step(step: str, folder: Path) -> int:
    """The work itself; prints rows, seconds, and the memory (KiB) that the imports alone took."""
    import_without_this_file()
    from deepfake_detectors.data import build_dataset, lint_dataset

    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    built = folder / "built"
    start = time.perf_counter()
    if step == "lint":
        rows = len(lint_dataset(built).rows)
    else:
        name, place, config = (
            ("image_folder", "pictures", "real_fake") if step == "build" else ("ffpp_hdf5", "clips", "c40")
        )
        rows = sum(build_dataset(name, built, folder / place, config).rows.values())
    seconds = time.perf_counter() - start
    print(json.dumps({"rows": rows, "seconds": seconds, "imports": imports}))
    return 0


def compare_with_decoding(folder: Path, frames: int, side: int) -> int:
    """Print CPU seconds of decoding, building and linting each set, and their ratios."""
    import_without_this_file()
    from deepfake_detectors.data import build_dataset, lint_dataset

    logging.disable(logging.WARNING)  # what builders notice about the raw files
    sets = [(f"{frames} JPEG frames, {side} x {side}", "image_folder", folder / "pictures", "real_fake", "*.jpg")]
    ddvqa = Path(os.environ.get("DEEPFAKE_DATA", "")) / "ddvqa"
    if os.environ.get("DEEPFAKE_DATA") and ddvqa.is_dir():
        sets.append(("DD-VQA c40", "ddvqa", ddvqa, "c40", "images_c40/*/*.jpg"))
    print(f"load of the machine at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    print("| set | rows | decode, CPU s | build | lint | build / decode | lint / decode |\n" + "| --- " * 7 + "|")
    for title, name, place, config, pattern in sets:
        pictures = sorted(place.rglob(pattern))
        output = folder / name

        def decode(pictures: list[Path] = pictures) -> int:
            for path in pictures:
                with Image.open(path) as image:
                    image.load()
            return len(pictures)

        def build(name: str = name, place: Path = place, config: str = config, output: Path = output) -> int:
            return sum(build_dataset(name, output, place, config, overwrite=True).rows.values())

        def lint(output: Path = output) -> int:
            return len(lint_dataset(output).rows)

        # The second time, all libraries are imported; the first also brings the files into the cache.
        rows = [work() for work in (decode, build, lint)]
        runs = [[cpu_seconds(work) for work in (decode, build, lint)] for _ in range(3)]
        spent = np.median(runs, axis=0)
        ratios = np.median(
            [[run[0] / run[1] * rows[1] / rows[0], run[0] / run[2] * rows[2] / rows[0]] for run in runs], 0
        )
        cells = (title, rows[0], *(f"{value:.2f}" for value in spent), *(f"{ratio:.2f}" for ratio in ratios))
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return 0


def cpu_seconds(work: Callable[[], int]) -> float:
    def spent() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    before = spent()
    work()
    return spent() - before


def import_without_this_file() -> None:
    """This file has the name of the library that it measures, and Python put its folder in front."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    import datasets  # noqa: F401


def picture(number: int, side: int) -> Image.Image:
    """A smooth picture with some noise, so that its file is as large as a photograph's."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + generator.integers(-12, 13, (side, side, 1), dtype=np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_pictures(folder: Path, frames: int, side: int) -> None:
    for number in range(frames):
        label = ("real", "fake")[number % 2]
        path = folder / "train" / label / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, side).save(path, quality=90)


def write_clips(folder: Path, frames: int, side: int) -> None:
    """Clips in the layout that M2F2-Det reads: one data set per video, and the list of the test pairs."""
    import h5py

    folder.mkdir(parents=True)
    pairs = [[f"{2 * i:03d}", f"{2 * i + 1:03d}"] for i in range(max(1, frames // FRAMES_PER_VIDEO // 10))]
    (folder / "test.json").write_text(json.dumps(pairs))
    fakes = ["_".join(order) for pair in pairs for order in (pair, pair[::-1])]
    names = {"original": [name for pair in pairs for name in pair]} | dict.fromkeys(METHODS, fakes)
    for method, keys in names.items():
        with h5py.File(folder / f"FF++_{method}_c40_test_only.h5", "w") as file:
            for video, key in enumerate(keys):
                still = np.asarray(picture(video, side))
                file[key] = np.stack([np.roll(still, frame, axis=1) for frame in range(FRAMES_PER_VIDEO)])


if __name__ == "__main__":
    sys.exit(main())
