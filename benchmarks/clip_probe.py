"""What the built-in detector costs: its first verdict, every further one, and memory.

    python benchmarks/clip_probe.py                     # pictures of this repository, three runs
    python benchmarks/clip_probe.py --pictures FOLDER --runs 5

Every row is a process of its own with one thread. CPU seconds are user and system of the whole process, counted from
where the imports end. "First verdict" is `pipeline()` and one picture, from the file to the row. Needs Linux or macOS.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

PICTURES = Path(__file__).resolve().parents[1] / "examples/pictures"
PROGRAM = """
import json, resource, sys, time
import torch
from transformers import AutoModel
import deepfake_detectors as dfd
from pathlib import Path
torch.set_num_threads(1)
files = sorted(str(path) for path in Path(sys.argv[1]).iterdir() if path.suffix in ('.jpg', '.png'))
files = (files * (24 // len(files) + 1))[:24]
def used():
    return time.process_time()
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3 / 1.024)
imported, start = peak(), used()
judge = dfd.pipeline(dtype=getattr(torch, sys.argv[2]))
judge(files[0])
first, start = used() - start, used()
for file in files:
    judge(file)
single, start = (used() - start) / len(files), used()
judge(files, batch_size=8)
batch = (used() - start) / len(files)
print(json.dumps([first, single, batch, peak(), imported]))
"""
COLUMNS = ("first verdict", "picture, one by one", "picture, batches of 8", "peak memory", "of which imports")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    parser.add_argument("--runs", type=int, default=3, help="processes per row; the medians are printed")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    arguments = parser.parse_args()
    rows: dict[str, list[list[float]]] = {dtype: [] for dtype in arguments.dtypes}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for _ in range(arguments.runs):
        for dtype, measured in rows.items():
            command = [sys.executable, "-c", PROGRAM, str(arguments.pictures), dtype]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            measured.append(json.loads(run.stdout.splitlines()[-1]))
    print(f"| dtype | {' | '.join(COLUMNS)} |\n" + "| --- " * (len(COLUMNS) + 1) + "|")
    for dtype, measured in rows.items():
        first, single, batch, peak, imported = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"| {dtype} | {first:.2f} s | {single:.2f} s | {batch:.2f} s | {peak:.0f} MB | {imported:.0f} MB |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
