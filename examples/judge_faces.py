"""Judge a few FaceForensics++ faces with the built-in detector and print the truth beside each verdict.

Needs: `pip install deepfake-detectors`, and the environment variable DEEPFAKE_DATA: a folder with
`ddvqa/images_c40/test/*.jpg` (research use only, see the terms of FaceForensics++). Seconds on two CPU cores.

    DEEPFAKE_DATA=/path/to/data python examples/judge_faces.py --per-class 4
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers import pipeline
from transformers.utils import logging

import deepfake_detectors  # noqa: F401  (registers the task)

FAKES = {"0": "Deepfakes", "1": "Face2Face", "3": "FaceSwap", "6": "NeuralTextures"}  # file name: type_target[_source]
REAL = "5"


def choose(folder: Path, per_class: int) -> list[tuple[Path, str]]:
    """The first `per_class` real pictures in name order, and as many fakes, taking the manipulations in turn."""
    by_type = {kind: sorted(folder.glob(f"{kind}_*.jpg")) for kind in [REAL, *FAKES]}
    if not all(by_type.values()):
        empty = ", ".join(kind for kind, found in by_type.items() if not found)
        raise ValueError(f"{folder} holds no pictures of type {empty}; DEEPFAKE_DATA must be the folder above ddvqa/.")
    turns = [(by_type[kind][turn], name) for turn in range(per_class) for kind, name in FAKES.items()
             if turn < len(by_type[kind])]  # fmt: skip
    return [(path, "real") for path in by_type[REAL][:per_class]] + turns[:per_class]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", type=int, default=4, help="real faces, and as many fake ones (default: 4)")
    parser.add_argument("--explain", action="store_true", help="also put each verdict into words")
    arguments = parser.parse_args()
    if "DEEPFAKE_DATA" not in os.environ:
        parser.error("DEEPFAKE_DATA is not set; set it to the folder that holds ddvqa/.")
    chosen = choose(Path(os.environ["DEEPFAKE_DATA"]) / "ddvqa" / "images_c40" / "test", arguments.per_class)

    logging.disable_progress_bar()
    paths = [str(path) for path, _ in chosen]
    verdicts = pipeline("deepfake-detection")(paths, batch_size=8, explain=arguments.explain)
    columns = ["picture", "truth", "verdict", "P(fake)", *(["in words"] if arguments.explain else [])]
    table = Table(*columns, title="FaceForensics++ faces, compression c40")
    right = 0
    for (path, truth), verdict in zip(chosen, verdicts, strict=True):
        agrees = (truth == "real") == (verdict["label"] == "real")
        right += agrees
        shown = verdict["label"] + ("" if agrees else " (wrong)")
        cells = [path.name, truth, shown, f"{verdict['fake_probability']:.3f}"]
        table.add_row(*cells, *([verdict["explanation"]] if arguments.explain else []))
    console = Console()
    console.print(table)
    closing = f"{right} of {len(chosen)} right. The built-in detector shows how the pipeline works; do not rely on it."
    console.print(closing, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
