"""Answers of other scripts in a JSON array, combined with the labels of their test list.

FakeVLM's `eval.py` and `eval_vllm.py` write such arrays: an image and an answer each, and no label. The labels are in
FakeClue's `data_json/test.json`, where 1 is real. Known are the fields of `eval.py`, from a public fork of it:
`image_path`, the image folder joined with the list's `image`, and `output`, what follows the last question mark
of prompt and answer. Those of `eval_vllm.py` could not be read; the other names here are what such scripts use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from deepfake_detectors.dataset_scripts._files import first_names, read_json
from deepfake_detectors.evaluation.predictions import LABELS, Prediction

__all__ = ["LabelledPicture", "read_labels", "read_result_array"]

# What scripts call the image and the answer. Where the first, which is known, is absent, one of the others may stand
# alone; an `id` beside it is not a second image.
PICTURE_FIELDS = ("image_path", "image", "img_path", "image_file", "file_name", "filename", "path", "id")
TEXT_FIELDS = ("output", "outputs", "answer", "response", "prediction", "pred", "text", "generated_text")
FAKECLUE = {1: "real", 0: "fake"}
FAKECLUE_FIELDS = {"image", "label", "cate", "conversations"}
REMEDY = "Pass the file written by the script, or the list that it read."


class LabelledPicture(NamedTuple):
    """A line of a test list.

    Args:
        id: the path of the image, as the list has it.
        label: `"real"` or `"fake"`.
        category: what it shows, if listed.
        question: the question about it; `""` if not listed.
        references: the answers of the list.
    """

    id: str
    label: str
    category: str | None
    question: str
    references: list[str]


def read_labels(path: Path, integer_labels: Mapping[int, str] | None = None) -> list[LabelledPicture]:
    """Read a test list: an array of records with `image` and `label`.

    Args:
        path: the list.
        integer_labels: meaning of the labels 0 and 1; `None` if they must be words. Not needed for complete FakeClue
            records (`image`, `label`, `cate`, `conversations`).

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: naming it, for a record in another format, or a duplicate image.
    """
    listed: dict[str, LabelledPicture] = {}
    for where, record in _records(path, "labels"):
        name, label = record.get("image", record.get("id")), record.get("label")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where}: the field 'image' is {name!r}, expected the path of an image.")
        known = FAKECLUE if set(record) >= FAKECLUE_FIELDS else integer_labels
        if type(label) is int and known is not None:
            label = known.get(label, label)
        if label not in LABELS:
            raise ValueError(
                f"{where}: the label of {name} is {label!r}, expected 'real' or 'fake'"
                + ("." if known is None else f" or one of {dict(known)}.")
            )
        if name in listed:
            raise ValueError(f"{where}: {name} occurs twice. Keep one.")
        category = record.get("cate", record.get("category"))
        question, references = _dialogue(where, record.get("conversations"))
        listed[name] = LabelledPicture(name, label, category, question, references)
    return list(listed.values())


def read_result_array(path: Path, labels: Sequence[LabelledPicture], labels_file: Path) -> list[Prediction]:
    """Read an array of answers and add the label of each image.

    An image is found in the list by the end of its path, independent of the folder used by the script.

    Args:
        path: the array.
        labels: of the same images; see `read_labels`.
        labels_file: source of the labels, for messages.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: naming the file, for records without an image or an answer, duplicate answers, and images that are
            missing in the list or in the answers.
    """
    find = _Finder(labels)
    rows: dict[str, Prediction] = {}
    unknown: list[str] = []
    for where, record in _records(path, "answers"):
        name, text = _one_of(where, record, PICTURE_FIELDS, "picture"), _one_of(where, record, TEXT_FIELDS, "answer")
        found = find(name)
        if found is None:
            unknown.append(name)
            continue
        if found.id in rows:
            raise ValueError(f"{where}: {found.id} has two answers. Keep one of the answers.")
        rows[found.id] = Prediction(found.id, found.label, text=_answer(text, found.question), category=found.category)
    if unknown:
        raise ValueError(
            f"{path}: {len(unknown)} of {len(rows) + len(unknown)} answers are about images that {labels_file} does "
            f"not list: {first_names(unknown)}. Pass the list that the script read."
        )
    missing = [row.id for row in labels if row.id not in rows]
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} of {len(labels)} images in {labels_file} have no answer: "
            f"{first_names(missing)}. Let the script finish, or shorten the list."
        )
    return list(rows.values())


class _Finder:
    """Finds an image by the end of its path, which must be unambiguous."""

    def __init__(self, labels: Sequence[LabelledPicture]) -> None:
        self.whole = {row.id: row for row in labels}
        self.ends: dict[str, LabelledPicture | None] = {}
        for row in labels:
            for end in _ends(row.id):
                self.ends[end] = None if end in self.ends else row

    def __call__(self, name: str) -> LabelledPicture | None:
        if name in self.whole:
            return self.whole[name]
        for end in _ends(name):  # the longest first
            if end in self.whole:
                return self.whole[end]
        return next((row for end in _ends(name) if (row := self.ends.get(end)) is not None), None)


def _ends(name: str) -> list[str]:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _records(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    records = read_json(path, REMEDY)
    if not isinstance(records, list) or not records:
        raise ValueError(f"{path} should be a JSON array with the {what}, one object for each image. {REMEDY}")
    for number, record in enumerate(records):
        where = f"{path}, record {number}"
        if not isinstance(record, dict):
            raise ValueError(f"{where} is {type(record).__name__}, expected an object. {REMEDY}")
        yield where, record


def _one_of(where: str, record: Mapping[str, Any], names: Sequence[str], what: str) -> str:
    found = [name for name in names if name in record]
    if not found:
        raise ValueError(
            f"{where} has the fields {', '.join(map(repr, record)) or 'none'}; the {what} should be in one of "
            f"{', '.join(names)}. This is not an array from FakeVLM's scripts."
        )
    if len(found) > 1 and found[0] != names[0] and found[1:] != ["id"]:
        raise ValueError(
            f"{where} has the fields {', '.join(map(repr, found))}, and each may hold the {what}. Keep one, or "
            f"call it {names[0]!r}."
        )
    value = record[found[0]]
    if isinstance(value, list) and len(value) == 1:  # as from batch decoding
        (value,) = value
    if not isinstance(value, str):
        raise ValueError(f"{where}: the field {found[0]!r} is {value!r}, expected a text.")
    return value


def _answer(text: str, question: str) -> str:
    """Return the text without the question, which the transformers script decodes with the answer."""
    return text.rpartition(question)[2] if question else text


def _dialogue(where: str, conversations: Any) -> tuple[str, list[str]]:
    """Return the question and reference answer of a FakeClue record."""
    if conversations is None:
        return "", []
    try:
        (_, question), (_, answer) = ((turn["from"], str(turn["value"])) for turn in conversations)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} should have one question and one answer in conversations.") from error
    return question.replace("<image>", "").strip(), [answer]
