"""Prediction and reference files in the published form of M2F2-Det, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Answer", "read_answers", "read_json_lines", "read_references"]

# Literal strings that the published scorer removes; "</n>" is no token of any model, but it is on its list.
TOKENS = ("</s>", "<s>", "</n>")


@dataclass(frozen=True)
class Answer:
    """One text about one picture.

    Attributes:
        stem: file name of the picture, without folder and suffix.
        text: what was generated, raw.
        key: number of the question, `<stem>_<n>`; `None` for a judgement.
        label: `"real"` or `"fake"` where the line states it.
        category: what kind of picture, where the line states it.
    """

    stem: str
    text: str
    key: str | None = None
    label: str | int | None = None
    category: str | None = None

    @property
    def clean_text(self) -> str:
        """Without the end-of-text marks, stripped."""
        text = self.text
        for token in TOKENS:
            text = text.replace(token, "")
        return text.strip()


def read_json_lines(path: Path, what: str) -> Iterator[tuple[str, Any]]:
    """Yield `(place, value)` of every line that is not blank; the place is for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a line that is no JSON, or a file that holds none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file, but it should hold the {what}.")
    found = False
    # Lines end at "\n" alone: JSON allows other separators inside a string. One at a time, as files may be large.
    with path.open(encoding="utf-8", newline="\n") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    found = True
                    place = f"{path}, line {number}"
                    yield place, _parse_object(place, line)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8 ({error}), but should hold the {what}.") from error
    if not found:
        raise ValueError(f"{path} is empty, but should hold the {what}.")


def _parse_object(place: str, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: no valid JSON ({error}). Expected one object a line.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected an object, got {type(value).__name__}.")
    return value


def read_answers(path: Path) -> list[Answer]:
    """Read `{"image", "text"}` lines, explanations with a `key` too.

    Raises:
        FileNotFoundError, ValueError: as `read_json_lines`, for a line without these fields, and for a picture (or
            key) that is answered twice.
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
            raise ValueError(f"{place}: {name} was answered before, at {places[name]}. Keep one of the answers.")
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
                raise ValueError(f"{place}: {key!r} is there twice.")
            references[key] = texts
    return references
