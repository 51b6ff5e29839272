"""`benchmark()`: several detectors on several datasets, with controls that do not look at images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from deepfake_detectors.corruptions import corruption_set
from deepfake_detectors.data.lint.leaks import find_leaks
from deepfake_detectors.data.lint.measures import Picture
from deepfake_detectors.data.lint.metadata_classifier import find_metadata_score
from deepfake_detectors.data.lint.run import NEAR_RADIUS, measure_source, require_libraries
from deepfake_detectors.data.lint.shortcuts import add_attributes
from deepfake_detectors.data.lint.sources import Source, open_source
from deepfake_detectors.evaluation.contestants import Contestant, TestSet, read_contestants, read_test_sets
from deepfake_detectors.evaluation.control import bytes_per_pixel_control
from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.evaluation.leaderboard import BYTES_PER_PIXEL, METADATA_FOREST, Leaderboard, Row
from deepfake_detectors.evaluation.paired import compare_scores
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups, labels_of, scores_of
from deepfake_detectors.evaluation.scoring import Detector, DetectorError
from deepfake_detectors.evaluation.sets import PictureSet
from deepfake_detectors.evaluation.wording import verdict_in_words
from deepfake_detectors.files import read_json_object
from deepfake_detectors.modeling.image_loading import InputImageError, load_image
from deepfake_detectors.outputs import folder_lock, write_json

__all__ = ["benchmark"]

CELLS, COST_FILE = "cells", "cost.json"
IDENTITY = ("manipulation", "video_id", "group_id")
# Progress: detector, dataset, images done, total images.
BenchmarkProgress = Callable[[str, str, int, int], None]


@dataclass
class Cell:
    """One detector on one dataset: the content of its results.json, and other data for the leaderboard."""

    detector: str
    dataset: str
    content: dict[str, Any]
    rows: list[Prediction]
    threshold: float
    unreadable: int
    seconds: float | None


def benchmark(
    detectors: Sequence[Any],
    datasets: Sequence[Any],
    *,
    output: str | Path,
    train: Sequence[str | Path | Mapping[str, Any]] = (),
    robustness: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    batch_size: int = 8,
    device: str | None = None,
    dtype: str = "auto",
    processes: bool = False,
    controls: bool = True,
    progress: BenchmarkProgress | None = None,
) -> Leaderboard:
    """Compare detectors on datasets.

    ```python
    benchmark(["clip-probe-mini", "m2f2-det-mini"], ["ddvqa", "my-pictures"], output="benchmark").save("benchmark")
    ```

    Every cell of the table is a run of `evaluate` in its own folder, with the same numbers. After an interruption, the
    same call does only what is missing. Detectors and datasets can be added to a folder later.

    Args:
        detectors: models, objects with `predict(paths)`, or mappings for `contestants.read_contestants`.
        datasets: names, folders or mappings for `contestants.read_test_sets`.
        output: folder for the cells. `Leaderboard.save` writes the tables.
        train: datasets that a detector was trained on, which are first checked for overlap with the test sets. Names
            or folders, with all their splits; or mappings as in `datasets`, whose `split` is `train` by default.
        robustness: also score altered images, as in `evaluate`.
        resamples: bootstrap resamples for the 95 % intervals; 0 for none.
        seed: seed of the bootstrap, and of noise added to images.
        batch_size, device, dtype: as in `evaluate`.
        processes: run every detector in its own process, one after the other, so that its memory is freed and a crash
            does not affect others.
        controls: add rows that do not look at images: bytes per pixel, and a random forest on metadata; needs the
            extra `lint`, like `train`.
        progress: called with detector, dataset, number of images done and total number.

    Returns:
        The leaderboard. A detector that fails is listed in its `failures`; the others still run.

    Raises:
        ValueError: for parameters out of range, invalid entries, or a folder of another run or in use by another
            process.
        OSError: for a missing file, folder or model.
        ImportError: for a library that is not installed, naming the extra.
    """
    sets = read_test_sets(datasets)
    contestants = read_contestants(detectors, sets)
    if robustness is not None:
        corruption_set(robustness)
    if resamples < 0 or batch_size < 1:
        raise ValueError(f"`resamples` is {resamples} and `batch_size` {batch_size}, expected at least 0 and 1.")
    if controls or train:
        require_libraries()
    trained = [_train_source(item) for item in train]
    options = {"resamples": resamples, "seed": seed, "batch_size": batch_size, "device": device, "dtype": dtype}
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`output` {folder} is a file; it must be a folder.")
    board = Leaderboard(robustness=robustness, resamples=resamples, seed=seed)
    with folder_lock(folder):
        _look_for_leaks(board, sets, trained, controls, resamples, seed)
        cells: list[Cell] = []
        for contestant in contestants:
            try:
                cells += _run(contestant, sets, {**options, "robustness": robustness}, folder, processes, progress)
            except DetectorError as error:
                board.failures[contestant.name] = str(error)
        for cell in cells:
            board.rows += _rows(cell, options)
        board.differences = _differences(cells, resamples, seed)
    return board


# ---- controls without a detector ------------------------------------------------------------------------------------


def _look_for_leaks(
    board: Leaderboard, sets: Sequence[TestSet], train: Sequence[Source], controls: bool, resamples: int, seed: int
) -> None:
    """Fill in results that do not need a detector: leaks, and the rows of the controls."""
    seen = [(source.name, measure_source(source)) for source in train]
    for entry in sets:
        pictures = entry.open()
        board.sets[entry.name] = {"set": pictures.name, "pictures": len(pictures.rows)}
        if not (controls or seen):
            continue
        measured = measure_source(_source(entry.name, pictures))
        for name, rows in seen:
            board.leaks += [
                {"train": name, "dataset": entry.name, **finding.to_dict()}
                for finding in find_leaks(rows, measured, (name, entry.name), NEAR_RADIUS)
            ]
        if controls:
            board.rows += _controls(entry.name, pictures, measured, resamples, seed)


def _train_source(item: str | Path | Mapping[str, Any]) -> Source:
    if isinstance(item, (str, Path)):
        return open_source(item)
    (entry,) = read_test_sets([item], "train")
    options = {"split": "train", **entry.options} if "dataset" in entry.options else entry.options
    return _source(entry.name, replace(entry, options=options).open())


def _source(name: str, pictures: PictureSet) -> Source:
    def listed() -> Any:
        for place, (row, file) in enumerate(zip(pictures.rows, pictures.files, strict=True)):
            known = {key: getattr(row, key) for key in IDENTITY}
            content, path = file, None
            if isinstance(file, dict):
                content, path = file.get("bytes"), file.get("path")
                content = Path(path) if content is None and path else content
            elif isinstance(file, (str, Path)):
                content, path = Path(file), str(file)
            elif file is None:
                try:
                    content = load_image(pictures.images[place])
                except InputImageError as error:
                    yield Picture(row.id, "test", row.label, None, None, known, str(error))
                    continue
            yield Picture(row.id, "test", row.label, content, path, known)

    return Source(name, len(pictures.rows), listed())


def _controls(name: str, pictures: PictureSet, measured: pd.DataFrame, resamples: int, seed: int) -> list[Row]:
    size = bytes_per_pixel_control(pictures.rows, pictures.files, resamples, seed)["metrics"]["bytes_per_pixel_auc"]
    counts: dict[str, Any] = {
        f"num_{label}": sum(row.label == label for row in pictures.rows) for label in ("real", "fake")
    }
    rows = [Row(BYTES_PER_PIXEL, name, kind="control", metrics={"auc": size}, **counts)]
    readable = add_attributes(measured[measured["error"].isna()].reset_index(drop=True))
    for finding in find_metadata_score(readable) if len(readable) else []:
        if finding.code == "metadata-classifier" and "auc" in finding.details:
            found = finding.details
            area = {"value": found["auc"], "low": found["low"], "high": found["high"]}
            rows.append(Row(METADATA_FOREST, name, kind="control", metrics={"auc": area}, **counts))
    return rows


# ---- detectors ------------------------------------------------------------------------------------------------------


def _run(
    contestant: Contestant,
    sets: Sequence[TestSet],
    options: Mapping[str, Any],
    folder: Path,
    processes: bool,
    progress: BenchmarkProgress | None,
) -> list[Cell]:
    if not processes or contestant.model is None:
        model = contestant.model
        if isinstance(model, str):  # its weights are loaded once for all datasets
            ways = {name: options[name] for name in ("device", "dtype", "batch_size")}
            loaded = Detector(model, **ways, family=contestant.options.get("family"))
            contestant = replace(contestant, model=loaded)
        return [_cell(contestant, entry, options, folder, progress) for entry in sets if _has(contestant, entry)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_run, contestant, sets, options, folder, False, None).result()
        except BrokenProcessPool as error:
            raise DetectorError(f"The process of {contestant.name} ended before it was finished.") from error


def _has(contestant: Contestant, entry: TestSet) -> bool:
    return contestant.model is not None or entry.name in contestant.scores


def _cell(
    contestant: Contestant,
    entry: TestSet,
    options: Mapping[str, Any],
    folder: Path,
    progress: BenchmarkProgress | None,
) -> Cell:
    place = folder / CELLS / contestant.name / entry.name
    given: dict[str, Any] = {**options, **contestant.options}
    clock = _Clock(lambda done, total: progress and progress(contestant.name, entry.name, done, total))
    if contestant.model is None:
        given.pop("robustness")
        results = evaluate(predictions=contestant.scores[entry.name], **entry.options, **given)
    else:
        results = evaluate(contestant.model, **entry.options, **given, output=place, progress=clock)
    results.save(place)
    return Cell(
        contestant.name,
        entry.name,
        results.content,
        results.predictions,
        results.threshold,
        len(results.failures),
        _kept_seconds(place, clock),
    )


class _Clock:
    """Progress of a cell that measures seconds per thousand unaltered images.

    Batches are timed from one call to the next, so loading the weights before the first call does not count. Calls for
    altered images are only forwarded.
    """

    def __init__(self, tell: Callable[[int, int], object]) -> None:
        self.tell, self.last, self.begun = tell, time.monotonic(), -1
        self.seconds, self.pictures, self.whole = 0.0, 0, True

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.begun >= 0 and done <= self.begun:
            self.whole = False  # the next dataset has started
        if self.whole and self.begun >= 0:
            self.seconds += now - self.last
            self.pictures += done - self.begun
        self.last, self.begun = now, done
        self.tell(done, total)


def _kept_seconds(place: Path, clock: _Clock) -> float | None:
    """Return seconds per thousand images, from this call if it scored any, otherwise from an earlier record."""
    file = place / COST_FILE
    if clock.pictures:
        found = {"seconds_per_1000": 1000 * clock.seconds / clock.pictures, "pictures": clock.pictures}
        before = read_json_object(file) if file.is_file() else {"pictures": 0}
        if found["pictures"] >= before["pictures"]:  # more images give a better number
            write_json(file, found)
    return read_json_object(file)["seconds_per_1000"] if file.is_file() else None


# ---- numbers --------------------------------------------------------------------------------------------------------


def _rows(cell: Cell, options: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a cell: its numbers from results.json, and the two error rates with intervals."""
    if not cell.rows or any(row.score is None for row in cell.rows):
        raise ValueError(f"{cell.detector} on {cell.dataset} has answers in words, but a leaderboard needs scores.")
    scores = scores_of(cell.rows)
    rates = compare_scores(
        labels_of(cell.rows),
        scores,
        scores,
        (cell.threshold, cell.threshold),
        bootstrap_groups(cell.rows)[1],
        options["resamples"],
        options["seed"],
    ).metrics
    own = {name: cell.content["metrics"][name] for name in ("auc", "accuracy", "eer")}
    own |= {name: rates[name] for name in ("false_alarm_rate", "miss_rate")}
    counts = {name: cell.content[name] for name in ("num_real", "num_fake")}
    rows = [
        Row(
            cell.detector,
            cell.dataset,
            metrics=own,
            threshold=cell.threshold,
            unreadable=cell.unreadable,
            seconds_per_1000=cell.seconds,
            words=_doubt(cell.content),
            **counts,
        )
    ]
    for name, entry in cell.content.get("robustness", {}).get("variants", {}).items():
        if "metrics" in entry:
            shown = ("auc", "accuracy", "false_alarm_rate", "miss_rate", "flip_rate")
            metrics = {key: entry["metrics"][key] for key in shown}
            rows.append(Row(cell.detector, cell.dataset, name, metrics=metrics, threshold=cell.threshold, **counts))
    return rows


def _doubt(content: Mapping[str, Any]) -> list[str]:
    return [line for line in verdict_in_words(content) if line.startswith(("Warning", "No better", "Worse"))]


def _differences(cells: Sequence[Cell], resamples: int, seed: int) -> list[dict[str, Any]]:
    """Compare each pair of detectors on the images of a dataset that both scored."""
    found = []
    for first, second in combinations(cells, 2):
        if first.dataset != second.dataset:
            continue
        known = {row.id: row for row in second.rows}
        pairs = [(row, known[row.id]) for row in first.rows if row.id in known and known[row.id].label == row.label]
        if not pairs:
            continue
        rows, others = [row for row, _ in pairs], [row for _, row in pairs]
        metrics = compare_scores(
            labels_of(rows),
            scores_of(rows),
            scores_of(others),
            (first.threshold, second.threshold),
            bootstrap_groups(rows)[1],
            resamples,
            seed,
        ).metrics
        found.append(
            {
                "dataset": first.dataset,
                "first": first.detector,
                "second": second.detector,
                "pictures": len(pairs),
                "auc_difference": metrics["auc_difference"],
                "accuracy_difference": metrics["accuracy_difference"],
            }
        )
    return found
