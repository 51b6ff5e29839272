"""One judged picture, and the file of them that `evaluate` writes and reads."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.answer_files import read_json_lines

__all__ = [
    "Prediction",
    "bootstrap_groups",
    "check_ids",
    "labels_of",
    "read_frame_scores",
    "read_predictions",
    "scores_of",
]

LABELS = {"real": 0, "fake": 1}
CSV_COLUMNS = ("image_id", "ground_truth", "prediction")


@dataclass(frozen=True)
class Prediction:
    """What is known and was said of one picture.

    Attributes:
        id: its name, unique in the set.
        label: the truth, `"real"` or `"fake"`.
        score: P(fake), or another finite number that is higher for fakes; `None` where only a text was given.
        text: the answer in words.
        manipulation: what made the fake; `"real"` for a real one.
        category: what the picture shows, or the data set it is of.
        video_id: the video it is a frame of.
        group_id: pictures that share source material have the same.
        set: the part of one class that it belongs to, such as a generator or a source of photographs.
        file_state: size and time of change of the file it was judged from; `None` where it is not a file of its own.
    """

    id: str
    label: str
    score: float | None = None
    text: str | None = None
    manipulation: str | None = None
    category: str | None = None
    video_id: str | None = None
    group_id: str | None = None
    set: str | None = None
    file_state: str | None = None

    def to_json(self) -> str:
        """One line without its end."""
        return json.dumps({key: value for key, value in vars(self).items() if value is not None}, ensure_ascii=False)

    @property
    def method(self) -> str:
        return "real" if self.label == "real" else self.manipulation or "fake"


def labels_of(rows: Sequence[Prediction]) -> np.ndarray:
    """int64 `(n,)`, 0 real and 1 fake."""
    return np.array([LABELS[row.label] for row in rows], dtype=np.int64)


def scores_of(rows: Sequence[Prediction]) -> np.ndarray:
    """float64 `(n,)`.

    Raises:
        ValueError: for a row without a score.
    """
    without = [row.id for row in rows if row.score is None]
    if without:
        raise ValueError(f"{len(without)} of {len(rows)} predictions have no score, the first being {without[0]}.")
    return np.array([row.score for row in rows], dtype=np.float64)


def bootstrap_groups(rows: Sequence[Prediction]) -> tuple[str, list[str] | None]:
    """What the bootstrap draws, the widest known: frames of one video are not independent either."""
    for name, field in (("group of shared source material", "group_id"), ("video", "video_id")):
        values = [getattr(row, field) for row in rows]
        if all(values):
            return name, [str(value) for value in values]
    return "picture", None


def read_predictions(path: Path, integer_labels: Mapping[int, str] | None = None) -> list[Prediction]:
    """Read a file of JSON lines, `{"id", "label", "score" and/or "text", ...}` (see `Prediction`).

    Args:
        path: the file.
        integer_labels: what 0 and 1 mean; `None` where labels must be words, so that the polarity is explicit.

    Raises:
        FileNotFoundError, ValueError: as `read_json_lines`; for a field that is missing or of the wrong kind, a score
            that is not finite, and a picture that is there twice.
    """
    rows: list[Prediction] = []
    places: dict[str, str] = {}
    for place, row in read_json_lines(path, "predictions"):
        prediction = _parse(place, row, integer_labels)
        if prediction.id in places:
            raise ValueError(f"{place}: {prediction.id} was judged before, at {places[prediction.id]}. Keep one.")
        places[prediction.id] = place
        rows.append(prediction)
    return rows


def _parse(place: str, row: dict[str, Any], integer_labels: Mapping[int, str] | None) -> Prediction:
    name = row.get("id", row.get("image"))
    if not isinstance(name, str) or not name:
        raise ValueError(f"{place}: the field 'id' is {name!r}, expected the name of a picture.")
    label = row.get("label")
    if isinstance(label, int) and not isinstance(label, bool) and integer_labels and label in integer_labels:
        label = integer_labels[label]
    if label not in LABELS:
        raise ValueError(
            f"{place}: the label of {name} is {label!r}, expected 'real' or 'fake'"
            + (f" or {dict(integer_labels)}." if integer_labels else "; numbers leave open which class they mean.")
        )
    score, text = row.get("score"), row.get("text")
    if score is None and text is None:
        raise ValueError(f"{place}: {name} has neither a 'score' (P(fake)) nor a 'text'.")
    if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
        raise ValueError(f"{place}: the score of {name} is {score!r}, expected a number, higher meaning more fake.")
    if score is not None and not math.isfinite(score):
        raise ValueError(
            f"{place}: the score of {name} is {score}. A model that returns NaN cannot be ranked; find out why first."
        )
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{place}: the text of {name} is {text!r}, expected a string.")
    optional = {"category": row.get("category", row.get("cate"))}
    optional |= {key: row.get(key) for key in ("manipulation", "video_id", "group_id", "set", "file_state")}
    return Prediction(name, label, score, text, **optional)


def read_frame_scores(path: Path) -> list[Prediction]:
    """Read M2F2-Det's frame scores, a table `image_id,ground_truth,prediction` with 1 = real and P(real).

    The video is the name without its last part: `0_000_7` is a frame of `0_000`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for other columns, labels or scores.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file, but it should hold the frame scores.")
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not set(CSV_COLUMNS) <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} has the columns {reader.fieldnames}, expected {', '.join(CSV_COLUMNS)}.")
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            name, truth = row["image_id"], row["ground_truth"]
            if truth not in ("0", "1"):
                raise ValueError(f"{place}: ground_truth is {truth!r}, expected 1 (real) or 0 (fake).")
            try:
                score = 1.0 - float(row["prediction"])
            except ValueError as error:
                raise ValueError(f"{place}: prediction is {row['prediction']!r}, expected P(real).") from error
            if not math.isfinite(score):
                raise ValueError(f"{place}: prediction is {row['prediction']}. A model that returns NaN has no rank.")
            rows.append(Prediction(name, "real" if truth == "1" else "fake", score, video_id=name.rpartition("_")[0]))
    if not rows:
        raise ValueError(f"{path} is empty, but should hold the frame scores.")
    return rows


def check_ids(judged: Sequence[str], expected: Sequence[str]) -> None:
    """Raise a `ValueError` unless exactly the pictures of the set (or of the references) were judged."""
    unknown = sorted(set(judged) - set(expected))
    if unknown:
        raise ValueError(
            f"{len(unknown)} predictions are about pictures that the set (or the references) does not hold, the first "
            f"being {', '.join(unknown[:3])}. Do these predictions belong to this set?"
        )
    missing = sorted(set(expected) - set(judged))
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(set(expected))} pictures of the set (or of the references) have no prediction, "
            f"the first being {', '.join(missing[:3])}. Score them, or name the subset."
        )
