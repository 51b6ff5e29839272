"""Scoring that survives being killed: predictions are written as they come, and a rerun does only what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from deepfake_detectors.evaluation.picture_sets import PictureSet
from deepfake_detectors.evaluation.predictions import Prediction, read_predictions

__all__ = [
    "PREDICTIONS_FILE",
    "RUN_FILE",
    "claim_folder",
    "cut_torn_line",
    "describe_model",
    "describe_set",
    "read_progress",
    "refuse_changed",
    "score_missing",
]

PREDICTIONS_FILE = "predictions.jsonl"
RUN_FILE = "run.json"
BLOCK = 65536  # bytes looked through at a time
WEIGHT_SUFFIXES = (".safetensors", ".json")


def describe_model(source: str) -> dict[str, Any]:
    """What tells one state of a model from another: its name, and for a folder size and time of its files."""
    folder = Path(source)
    files: dict[str, list[int]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix in WEIGHT_SUFFIXES and path.is_file():
                status = path.stat()
                files[path.name] = [status.st_size, status.st_mtime_ns]
    return {"name": source, "files": files}


def describe_set(pictures: PictureSet) -> dict[str, Any]:
    """What tells one set of pictures from another: its name, size, files, and a digest of what is known of each.

    The files of a folder are not in it: a picture that could not be read may be replaced, see `refuse_changed`.
    """
    content = "\n".join(replace(row, file_state=None).to_json() for row in pictures.rows)
    return {
        "name": pictures.name,
        "pictures": len(pictures.rows),
        "sha256": sha256(content.encode()).hexdigest(),
        "files": pictures.fingerprint,
    }


def refuse_changed(pictures: PictureSet, done: Mapping[str, Prediction], output: Path) -> None:
    """Raise a `ValueError` if a picture has been written anew since it was scored."""
    changed = [row.id for row in pictures.rows if row.id in done and done[row.id].file_state != row.file_state]
    if changed:
        raise ValueError(
            f"{len(changed)} pictures have changed since {output} holds their predictions, the first being "
            f"{changed[0]}. Choose another --output, or remove this folder."
        )


def claim_folder(output: Path, run: dict[str, Any]) -> None:
    """Note in the folder what is being scored, or check that it is what was begun there.

    Raises:
        ValueError: where the folder holds predictions of another run, or ones of unknown origin.
    """
    file, predictions = output / RUN_FILE, output / PREDICTIONS_FILE
    if file.is_file() and predictions.is_file():
        try:
            begun = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{file} is no valid JSON ({error}); choose another --output.") from error
        # Through JSON, as tuples and such come back changed.
        wanted = json.loads(json.dumps(run))
        different = [key for key in sorted({*begun, *wanted}) if begun.get(key) != wanted.get(key)]
        if different:
            raise ValueError(
                f"{output} holds predictions of another run: {', '.join(different)} differ (see {file}). "
                "Choose another --output, or remove this folder."
            )
    elif predictions.is_file():
        raise ValueError(f"{predictions} exists, but no {RUN_FILE} says of which run. Choose another --output.")
    else:
        output.mkdir(parents=True, exist_ok=True)
        # Before the first prediction, and in one piece: a torn note would claim nothing.
        part = output / f"{RUN_FILE}.part"
        part.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        part.replace(file)


def read_progress(file: Path) -> dict[str, Prediction]:
    """What was scored already, by id. A last line that was cut off by a kill is removed from the file.

    Raises:
        ValueError: for any other broken line.
    """
    if not file.is_file():
        return {}
    cut_torn_line(file)
    return {row.id: row for row in read_predictions(file)} if file.stat().st_size else {}


def cut_torn_line(file: Path) -> None:
    """Remove what follows the last line end: a line that a kill cut off."""
    size = file.stat().st_size
    with file.open("r+b") as handle:
        end = size
        while end:
            start = max(0, end - BLOCK)
            handle.seek(start)
            found = handle.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            handle.truncate(end)


def score_missing(
    judge: Callable[[list[Any]], list[dict[str, Any]]],
    pictures: PictureSet,
    file: Path,
    done: dict[str, Prediction],
    batch_size: int,
    failures: dict[str, str],
    keep: Callable[[dict[int, dict[str, Any]]], None] | None = None,
) -> Iterator[Prediction]:
    """Score what `done` lacks, append it to `file`, and yield every picture that has a prediction, in order.

    Batches are cut by place in the set and not by what is missing, so that a rerun computes the same numbers.

    Args:
        judge: takes images and returns a row for each, `{"fake_probability", "explanation"}` or `{"error"}`.
        pictures: the set.
        file: JSON lines; created when there is something to write.
        done: from `read_progress`.
        batch_size: pictures per call of `judge`.
        failures: gets id -> message of the pictures that could not be read.
        keep: gets place in the set -> verdict of what was judged, before the predictions are written: what it stores
            is there for every prediction in the file.

    Raises:
        ValueError: from `judge`, or for predictions about pictures that are not in the set.
    """
    strangers = sorted(set(done) - set(pictures.ids))
    if strangers:
        raise ValueError(
            f"{file} holds predictions about pictures that are not in the set: {', '.join(strangers[:3])}."
        )
    for start in range(0, len(pictures.rows), batch_size):
        rows = pictures.rows[start : start + batch_size]
        fresh: dict[str, Prediction] = {}
        judged: dict[int, dict[str, Any]] = {}
        if any(row.id not in done for row in rows):
            images = [pictures.images[start + offset] for offset in range(len(rows))]
            for place, (row, verdict) in enumerate(zip(rows, judge(images), strict=True), start=start):
                if row.id in done:
                    continue
                if "error" in verdict:
                    failures[row.id] = verdict["error"]
                    continue
                judged[place] = verdict
                fresh[row.id] = replace(row, score=verdict["fake_probability"], text=verdict.get("explanation"))
            if judged and keep is not None:
                keep(judged)
            if fresh:
                with file.open("a", encoding="utf-8") as handle:  # one write, so that a kill rarely cuts a batch
                    handle.write("".join(prediction.to_json() + "\n" for prediction in fresh.values()))
        for row in rows:
            prediction = done.get(row.id) or fresh.get(row.id)
            if prediction is not None:
                yield prediction
