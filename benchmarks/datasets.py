"""Does building and linting a data set stay flat in memory, and how fast is it?

    python benchmarks/datasets.py                          # 20,000 frames as picture files: build, then lint
    python benchmarks/datasets.py --steps arrays --frames 2000    # frames of HDF5 clips, each encoded as PNG

Writes synthetic frames in an official layout, then does each step in a process of its own, whose highest resident
memory the operating system reports (children included). Ends with 1 if a step needs more than --limit.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
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
    parser.add_argument("--run", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        return run_step(arguments.run[0], Path(arguments.run[1]))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if {"build", "lint"} & set(arguments.steps):
            write_pictures(folder / "pictures", arguments.frames, arguments.side)
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
    # This file has the name of the library that it measures, and Python put its folder in front.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    import datasets  # noqa: F401

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
