"""CPU seconds (user and system) until the command line has answered, and until the package is imported.

    python benchmarks/startup.py --runs 5

Every run is a process of its own, after one that is not counted (it writes the byte code). The two sides of the
import, transformers alone and with the package on top, take turns, so that both see the same machine. Needs Linux or
macOS. The commands may cost 0.6 seconds each, the package 0.6 on top of transformers.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys

COMMANDS = (
    ["--help"],
    ["detect", "--help"],
    ["evaluate", "--help"],
    ["convert", "--help"],
    ["merge", "--help"],
    ["publish", "--help"],
    ["info", "--help"],
    ["dataset", "--help"],
    ["dataset", "list", "--help"],
    ["dataset", "lint", "--help"],
    ["dataset", "list"],
    ["info"],
)
TRANSFORMERS = "from transformers import AutoModel, pipeline"


def cpu_seconds(*arguments: str) -> float:
    """Return what one process of this Python costs.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(processes: dict[str, tuple[str, ...]], runs: int) -> dict[str, float]:
    """Return the median of each process over `runs` rounds, in which all take turns."""
    found: dict[str, list[float]] = {name: [] for name in processes}
    for turn in range(runs + 1):
        for name, arguments in processes.items():
            seconds = cpu_seconds(*arguments)
            if turn > 0:
                found[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="processes per line; the median is printed")
    runs = parser.parse_args().runs

    commands = {" ".join(words): ("-m", "deepfake_detectors_cli", *words) for words in COMMANDS}
    for name, seconds in medians(commands, runs).items():
        print(f"{seconds:6.2f} s  deepfake-detectors {name}")
    sides = {"without": ("-c", TRANSFORMERS), "with": ("-c", f"{TRANSFORMERS}; import deepfake_detectors")}
    found = medians(sides, runs)
    print(f"{found['without']:6.2f} s  {TRANSFORMERS}")
    print(f"{found['with'] - found['without']:6.2f} s  import deepfake_detectors, on top")


if __name__ == "__main__":
    main()
