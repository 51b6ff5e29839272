"""Prediction files: those of `evaluate`, frame scores, and M2F2-Det's published answers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepfake_detectors.dataset_scripts._files import parse_json_lines, read_csv, read_text

__all__ = [
    "Answer",
    "Prediction",
    "bootstrap_groups",
    "check_ids",
    "kinds_of_files",
    "labels_of",
    "read_answers",
    "read_frame_scores",
    "read_json_lines",
    "read_predictions",
    "read_references",
    "read_rows",
    "scores_of",
]

LABELS = {"real": 0, "fake": 1}
CSV_COLUMNS = ("image_id", "ground_truth", "prediction")
KNOWN_OF_PICTURES = ("manipulation", "category", "video_id", "group_id", "set")
# Literal strings that the published scorer removes; "</n>" is not a token of any model, but is in its list.
TOKENS = ("</s>", "<s>", "</n>")


@dataclass(frozen=True)
class Prediction:
    """The data and prediction of one image.

    Attributes:
        id: its name, unique in the set.
        label: the truth, `"real"` or `"fake"`.
        score: P(fake), or another finite number that is higher for fakes; `None` if there is only a text.
        text: the answer in words.
        manipulation: how the fake was made; `"real"` for real images.
        category: what the image shows, or its dataset.
        video_id: the video it is a frame of.
        group_id: the same for images that share source material.
        set: its single-class part of the dataset, such as a generator or a source of photographs.
        file_state: size and modification time of the scored file; `None` if it is not a separate file.
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
        """Return one line of JSON without its end."""
        return json.dumps({key: value for key, value in vars(self).items() if value is not None}, ensure_ascii=False)

    @property
    def method(self) -> str:
        return "real" if self.label == "real" else self.manipulation or "fake"


def labels_of(rows: Sequence[Prediction]) -> np.ndarray:
    """Return the labels, int64 `(n,)`, 0 real and 1 fake."""
    return np.array([LABELS[row.label] for row in rows], dtype=np.int64)


def scores_of(rows: Sequence[Prediction]) -> np.ndarray:
    """Return the scores, float64 `(n,)`.

    Raises:
        ValueError: for a row without a score.
    """
    without = [row.id for row in rows if row.score is None]
    if without:
        raise ValueError(f"{len(without)} of {len(rows)} predictions have no score, the first being {without[0]}.")
    return np.array([row.score for row in rows], dtype=np.float64)


def bootstrap_groups(rows: Sequence[Prediction]) -> tuple[str, list[str] | None]:
    """Return the units of the bootstrap, the widest known ones, because frames of one video are not independent."""
    for name, field in (("group of shared source material", "group_id"), ("video", "video_id")):
        values = [getattr(row, field) for row in rows]
        if all(values):
            return name, [str(value) for value in values]
    return "picture", None


def read_json_lines(path: Path, what: str) -> Iterator[tuple[str, Any]]:
    """Yield `(place, value)` for every non-blank line; the place is for messages.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: for a line that is not JSON, or an empty file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it should contain the {what}.")
    found = False
    for place, value in parse_json_lines(read_text(path), str(path)):
        found = True
        if not isinstance(value, dict):
            raise ValueError(f"{place}: expected an object, got {type(value).__name__}.")
        yield place, value
    if not found:
        raise ValueError(f"{path} is empty; it should contain the {what}.")


def read_rows(
    files: Sequence[Path],
    integer_labels: Mapping[int, str] | None = None,
    official_answers: bool = False,
    expected: Sequence[Prediction] | None = None,
) -> list[Prediction] | None:
    """Read predictions of images from a cached file; return `None` for M2F2-Det's published answers.

    Args:
        files: one file of `Prediction` lines or frame scores; or answers for judgements, explanations, or both.
        integer_labels: meaning of the labels 0 and 1; `None` if labels must be words.
        official_answers: whether M2F2-Det's published answers are allowed.
        expected: data of the images that must have predictions, which completes the file. Not checked if `None`.

    Raises:
        FileNotFoundError, ValueError: for files that are missing, broken, or do not belong together, and for a label
            that contradicts the dataset.
    """
    kinds = kinds_of_files(files, official_answers)
    if not set(kinds) & {"rows", "frames"}:
        return None
    if len(kinds) > 1:
        raise ValueError("Predictions of images must be in a single file.")
    ((kind, file),) = kinds.items()
    rows = read_frame_scores(file) if kind == "frames" else read_predictions(file, integer_labels)
    if expected is None:
        return rows
    check_ids([row.id for row in rows], [row.id for row in expected])
    known = {row.id: row for row in expected}
    return [_completed(row, known[row.id], file) for row in rows]


def kinds_of_files(files: Sequence[Path], official_answers: bool) -> dict[str, Path]:
    """Return kind -> file; kinds are `frames`, `rows`, `judgement` and `explanation`.

    Raises:
        FileNotFoundError, ValueError: for a missing or strange file, or two of one kind.
    """
    kinds = {_kind(file, official_answers): file for file in files}
    if len(kinds) < len(files):
        raise ValueError(
            "Two files of `predictions` have the same kind; pass one of judgements and one of explanations."
        )
    return kinds


def _kind(file: Path, official_answers: bool) -> str:
    if file.suffix.lower() == ".csv":
        return "frames"
    if _is_array(file):
        raise ValueError(
            f"{file} is a JSON array without labels, as written by FakeVLM's scripts: pass the test list that they "
            "read as `labels`. Predictions of this package have one object per line."
        )
    place, first = next(read_json_lines(file, "predictions"))
    if not official_answers or "label" in first:
        return "rows"
    if "text" not in first:
        raise ValueError(
            f"{place}: neither a prediction of this package (id, label, score or text) nor an answer of M2F2-Det "
            f"(image, text); the fields are {', '.join(first)}."
        )
    return "explanation" if "key" in first else "judgement"


def _is_array(path: Path) -> bool:
    """Return whether a file is a JSON array, by its first character."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _completed(row: Prediction, known: Prediction, file: Path) -> Prediction:
    """Return the prediction, completed with the dataset's information about its image."""
    if row.label != known.label:
        raise ValueError(
            f"{file}: the label of {row.id} is {row.label!r}, but in the dataset it is {known.label!r}. Use the "
            "labels of the dataset, or leave out the dataset to use those of the file."
        )
    absent = (name for name in KNOWN_OF_PICTURES if getattr(row, name) is None)
    return replace(row, **{name: getattr(known, name) for name in absent})


def read_predictions(path: Path, integer_labels: Mapping[int, str] | None = None) -> list[Prediction]:
    """Read a file of JSON lines, `{"id", "label", "score" and/or "text", ...}` (see `Prediction`).

    Args:
        path: the file.
        integer_labels: meaning of 0 and 1; `None` if labels must be words, so that the polarity is explicit.

    Raises:
        FileNotFoundError, ValueError: as `read_json_lines`; for a missing field or one with the wrong type, a score
            that is not finite, and a duplicate image.
    """
    rows: list[Prediction] = []
    places: dict[str, str] = {}
    for place, row in read_json_lines(path, "predictions"):
        prediction = _parse(place, row, integer_labels)
        if prediction.id in places:
            raise ValueError(
                f"{place}: {prediction.id} already has a prediction at {places[prediction.id]}. Keep one."
            )
        places[prediction.id] = place
        rows.append(prediction)
    return rows


def _parse(place: str, row: dict[str, Any], integer_labels: Mapping[int, str] | None) -> Prediction:
    name = row.get("id", row.get("image"))
    if not isinstance(name, str) or not name:
        raise ValueError(f"{place}: the field 'id' is {name!r}, expected the name of an image.")
    label = row.get("label")
    if isinstance(label, int) and not isinstance(label, bool) and integer_labels and label in integer_labels:
        label = integer_labels[label]
    if label not in LABELS:
        raise ValueError(
            f"{place}: the label of {name} is {label!r}, expected 'real' or 'fake'"
            + (f" or {dict(integer_labels)}." if integer_labels else "; numbers are ambiguous.")
        )
    score, text = row.get("score"), row.get("text")
    if score is None and text is None:
        raise ValueError(f"{place}: {name} has neither a 'score' (P(fake)) nor a 'text'.")
    if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
        raise ValueError(f"{place}: the score of {name} is {score!r}, expected a number that is higher for fakes.")
    if score is not None and not math.isfinite(score):
        raise ValueError(
            f"{place}: the score of {name} is {score}. Scores of NaN cannot be ranked; find the cause first."
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
        FileNotFoundError: if the file does not exist.
        ValueError: for other columns, labels or scores.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it should contain the frame scores.")
    rows = []
    columns, table = read_csv(path)
    if not set(CSV_COLUMNS) <= set(columns):
        raise ValueError(f"{path} has the columns {columns}, expected {', '.join(CSV_COLUMNS)}.")
    for place, row in table:
        name, truth = row["image_id"], row["ground_truth"]
        if truth not in ("0", "1"):
            raise ValueError(f"{place}: ground_truth is {truth!r}, expected 1 (real) or 0 (fake).")
        try:
            score = 1.0 - float(row["prediction"])
        except ValueError as error:
            raise ValueError(f"{place}: prediction is {row['prediction']!r}, expected P(real).") from error
        if not math.isfinite(score):
            raise ValueError(f"{place}: prediction is {row['prediction']}. Scores of NaN cannot be ranked.")
        rows.append(Prediction(name, "real" if truth == "1" else "fake", score, video_id=name.rpartition("_")[0]))
    if not rows:
        raise ValueError(f"{path} is empty; it should contain the frame scores.")
    return rows


def check_ids(judged: Sequence[str], expected: Sequence[str]) -> None:
    """Raise a `ValueError` unless exactly the images of the dataset (or of the references) have predictions."""
    unknown = sorted(set(judged) - set(expected))
    if unknown:
        raise ValueError(
            f"{len(unknown)} predictions are about images that are not in the dataset (or the references), such as "
            f"{', '.join(unknown[:3])}. Check that they belong to this dataset."
        )
    missing = sorted(set(expected) - set(judged))
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(set(expected))} images of the dataset (or of the references) have no "
            f"prediction, such as {', '.join(missing[:3])}. Score them, or evaluate only the subset."
        )


@dataclass(frozen=True)
class Answer:
    """One text about one image.

    Attributes:
        stem: file name of the image without folder and suffix.
        text: the raw generated text.
        key: number of the question, `<stem>_<n>`; `None` for a judgement.
        label: `"real"` or `"fake"`, if the line has it.
        category: kind of image, if the line has it.
    """

    stem: str
    text: str
    key: str | None = None
    label: str | int | None = None
    category: str | None = None

    @property
    def clean_text(self) -> str:
        """The stripped text without end-of-text marks."""
        text = self.text
        for token in TOKENS:
            text = text.replace(token, "")
        return text.strip()


def read_answers(path: Path) -> list[Answer]:
    """Read `{"image", "text"}` lines; explanations also have a `key`.

    Raises:
        FileNotFoundError, ValueError: as `read_json_lines`, for a line without these fields, and for an image (or key)
            with two answers.
    """
    answers: list[Answer] = []
    places: dict[str, str] = {}
    for place, row in read_json_lines(path, "answers"):
        image = row.get("image", row.get("id"))
        text = row.get("text")
        for name, value in (("image", image), ("text", text)):
            if not isinstance(value, str):
                raise ValueError(f"{place}: the field {name!r} is {value!r}, expected a string.")
        answer = Answer(
            Path(str(image)).stem, str(text), row.get("key"), row.get("label"), row.get("category", row.get("cate"))
        )
        name = answer.key or str(image)
        if name in places:
            raise ValueError(f"{place}: {name} already has an answer at {places[name]}. Keep one of the answers.")
        places[name] = place
        answers.append(answer)
    return answers


def read_references(path: Path) -> dict[str, list[str]]:
    """Read `{key: {"question", "answer": [text, ...]}}` lines into key -> reference texts.

    Raises:
        FileNotFoundError, ValueError: as `read_json_lines`, and for an entry without answers.
    """
    references: dict[str, list[str]] = {}
    for place, row in read_json_lines(path, "reference explanations"):
        for key, entry in row.items():
            texts = entry.get("answer") if isinstance(entry, dict) else None
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or not texts:
                raise ValueError(
                    f"{place}: {key!r} has no list of reference answers; expected "
                    '{"<key>": {"question": ..., "answer": ["..."]}}.'
                )
            if key in references:
                raise ValueError(f"{place}: {key!r} occurs twice.")
            references[key] = texts
    return references
