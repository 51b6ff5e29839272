"""`deepfake-detectors benchmark`: compare detectors on datasets and write a leaderboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import fail, say, show
from deepfake_detectors_cli.options import BatchSize, Device, Dtype, DtypeName, Family

__all__ = ["benchmark"]


def benchmark(
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Folder for the leaderboard and the result of each detector on each dataset."
        ),
    ],
    plan: Annotated[
        Path | None,
        typer.Argument(metavar="[PLAN]", help="YAML file that lists detectors, datasets and other options."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", metavar="MODEL", help="A detector to compare; repeatable.")
    ] = None,
    family: Family = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FOLDER", help="A dataset, a built folder, or a folder with real and fake images; repeatable."
        ),
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="Training data of the detectors, checked first for leaks into the datasets; repeatable.",
        ),
    ] = None,
    robustness: Annotated[
        str | None,
        typer.Option(metavar="SET", help="Also score altered images: light, full, or names of corruptions."),
    ] = None,
    resamples: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Bootstrap resamples of the 95 % intervals. [default: 1000]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of the bootstrap and of added noise. [default: 0]")
    ] = None,
    processes: Annotated[bool, typer.Option("--processes", help="Run each detector in its own process.")] = False,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Add control rows that do not look at the images.")
    ] = True,
    batch_size: BatchSize = 8,
    device: Device = None,
    dtype: Dtype = DtypeName.auto,
) -> None:
    """Compare detectors on datasets: writes a leaderboard as JSON, CSV, Markdown and a sortable HTML page.

    \b
    Examples:
      deepfake-detectors benchmark --model clip-probe-mini --model m2f2-det-mini --dataset images --output board
      deepfake-detectors benchmark plan.yaml --output board

    \b
    A plan:
      detectors:
        - clip-probe-mini
        - {name: mine, predict: "my_package:detector"}    # an object with predict(paths) that returns P(fake)
        - {name: theirs, scores: {images: theirs.jsonl}}
      datasets:
        - images                                        # a folder with real and fake
        - {name: faces, dataset: ddvqa, data_dir: ddvqa}
      train:
        - training-pictures
        - {dataset: ddvqa, data_dir: ddvqa, split: train}
      robustness: light

    Options on the command line take precedence over the plan. After an interruption, the same command does only what
    is missing. The exit code is 0 on success, 1 if a detector failed or an image could not be read, 2 if the command
    or the plan was wrong.
    """
    from transformers.utils import logging as transformers_logging

    from deepfake_detectors.evaluation.benchmark import benchmark
    from deepfake_detectors.evaluation.contestants import read_plan
    from deepfake_detectors.evaluation.leaderboard import UNCHANGED

    transformers_logging.disable_progress_bar()
    given: dict[str, Any] = {} if plan is None else read_plan(plan)
    if family is not None and not model:
        fail("--family applies to the folders given by --model: add --model, or set `family` in the plan.")
    typed = {
        "detectors": model if family is None else [{"model": name, "family": family} for name in model or ()],
        "datasets": dataset,
        "train": train,
        "robustness": robustness,
        "resamples": resamples,
        "seed": seed,
        "processes": processes or None,
        "controls": None if controls else False,
        "batch_size": batch_size if batch_size != 8 else None,
        "device": device,
        "dtype": dtype.value if dtype is not DtypeName.auto else None,
    }
    given |= {name: value for name, value in typed.items() if value not in (None, [])}
    board = benchmark(given.pop("detectors", []), given.pop("datasets", []), output=output, progress=_Told(), **given)
    files = board.save(output)
    for text in board.warnings():  # before any result
        say(text)
    for row in board.sorted_rows():
        if row.variant == UNCHANGED:
            area = row.metrics["auc"]["value"]
            shown = "undefined" if area is None else f"{area:.4f}"
            show(f"{row.dataset:<24}{row.detector:<28}{row.kind:<10}AUC {shown}")
    say(f"Wrote {', '.join(path.name for path in files)} to {output}.")
    if board.failures or any(row.unreadable for row in board.rows):
        raise typer.Exit(1)


class _Told:
    """Announce each pair of detector and dataset once, on a terminal."""

    def __init__(self) -> None:
        self.last: tuple[str, str] | None = None

    def __call__(self, detector: str, dataset: str, done: int, total: int) -> None:
        if sys.stderr.isatty() and (detector, dataset) != self.last:
            self.last = detector, dataset
            say(f"{detector} on {dataset}: {done} of {total} images were already scored.")
