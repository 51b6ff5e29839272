"""The images of LOKI: real and synthetic, in seven categories, with questions and descriptions of faults.

Ye et al., "LOKI: A Comprehensive Synthetic Data Detection Benchmark using Large Multimodal Models" (ICLR 2025).
Expected:

    media_data/image/<uuid>.{png,jpg,JPG}
    data_json/image/true_or_false.json      two questions per image: image_path, question, answer, question_type
    data_json/image/open_ended_vqa.json     UTF-16; faults of fake images: image_path, question, problems
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import datasets

from ._builder import RawBuilder, RawConfig, Unit, unit_columns
from ._files import first_names, inner_path, is_picture, read_json, refuse_outside, stable_id, walk_files

__all__ = ["LOKI", "LOKIConfig"]

VERSION = datasets.Version("1.0.0")
LISTS = {
    "pictures": "data_json/image/true_or_false.json",
    "questions": "data_json/image/true_or_false.json",
    "faults": "data_json/image/open_ended_vqa.json",
}
MEDIA = "media_data/image"
# The answer depends on the question, so the label is the word after "image_tf_image".
QUESTION_TYPE = re.compile(r"image_tf_image_(?P<label>real|fake)_ask_(?P<asked>real|fake)_(?P<category>.+)")
PICTURES = {"real": 900, "fake": 1317}
FAULTY = 229
MARKER = "<image>"


@dataclass
class LOKIConfig(RawConfig):
    """One version of the dataset.

    Args:
        task: `"pictures"`: one row per image. `"questions"`: one row per question, two per image. `"faults"`:
            descriptions of what is wrong with fake images; most of these images are not in the other tasks.
    """

    task: str = "pictures"

    def check(self) -> None:
        """Raise a `ValueError` for a value that is not allowed."""
        super().check()
        if self.task not in LISTS:
            raise ValueError(f"task is {self.task!r}, expected one of {', '.join(LISTS)}.")


class Entry(NamedTuple):
    """A row before decoding."""

    picture: PurePosixPath
    name: str
    label: str
    category: str | None
    question: str
    answer: str
    answers: list[str]


class LOKI(RawBuilder):
    """The images of LOKI: 900 real and 1,317 fake, test only, each with two questions that have opposite answers.

    The paper does not state which of the two questions its results use.
    """

    VERSION = VERSION
    BUILDER_CONFIG_CLASS = LOKIConfig
    BUILDER_CONFIGS = [
        LOKIConfig(name="pictures", version=VERSION, description="One row per image."),
        LOKIConfig(name="questions", version=VERSION, task="questions", description="Two questions per image."),
        LOKIConfig(
            name="faults", version=VERSION, task="faults", description="Descriptions of faults in fake images."
        ),
    ]
    DEFAULT_CONFIG_NAME = "pictures"
    NAME = "LOKI"
    TERMS = "The images have no stated licence; their sources have their own terms. For research only."
    LAYOUT = "media_data/image/<uuid>.{png,jpg,JPG}, data_json/image/{true_or_false,open_ended_vqa}.json"
    REMEDY = "Point data_dir at a copy of github.com/opendatalab/LOKI with its media_data/."
    HOMEPAGE = "https://github.com/opendatalab/LOKI"

    def has_dialogue(self) -> bool:
        """Return true for all tasks except `"pictures"`."""
        return self.config.task != "pictures"

    def official_counts(self) -> dict[str, dict[str, int]]:
        """Return 900 real and 1,317 fake images with two questions each, or 229 fake ones with faults."""
        if self.config.task == "faults":
            return {"test": {"real": 0, "fake": FAULTY}}
        each = 2 if self.config.task == "questions" else 1
        return {"test": {label: each * count for label, count in PICTURES.items()}}

    def units(self, root: Path) -> dict[str, list[Unit]]:
        """Return one unit per row, in the order of the list."""
        path = root / LISTS[self.config.task]
        rows = read_json(path, self.REMEDY)
        if not isinstance(rows, list):
            raise ValueError(f"{path} should be a list of records.")
        entries = list(_faults(path, rows) if self.config.task == "faults" else _questions(path, rows))
        if self.config.task == "pictures":
            entries = list({entry.picture: entry._replace(name="") for entry in reversed(entries)}.values())[::-1]
        units, read = [], set()
        for entry in entries:
            file = root / entry.picture
            if not file.is_file():
                self.missing.append(str(file))
                continue
            refuse_outside(root, file)
            read.add(file)
            units.append(self._unit(file, entry))
        extra = [str(file) for file in walk_files(root, root / MEDIA) if file not in read and is_picture(file)]
        if extra:
            self.report(
                "warning", f"{len(extra)} image(s) ignored because they are not in {path.name}: {first_names(extra)}."
            )
        return {"test": units}

    def _unit(self, file: Path, entry: Entry) -> Unit:
        picture = stable_id("loki", file.stem)
        columns: dict[str, Any] = unit_columns(
            label=entry.label,
            group_id=picture,
            manipulation=None,  # generators are not published
            family="synthesis",
            category=entry.category,
        )
        if self.has_dialogue():
            columns |= {
                "question": entry.question,
                "answer": entry.answer,
                "answers": entry.answers,
                "messages": [
                    {"role": "user", "content": entry.question},
                    {"role": "assistant", "content": entry.answer},
                ],
            }
        return Unit(f"{picture}/{entry.name}" if entry.name else picture, str(file), columns)


def _picture(row: dict[str, Any], where: str) -> PurePosixPath:
    if not isinstance(row, dict) or not isinstance(row.get("image_path"), str):
        raise ValueError(f"{where} has no image_path.")
    return inner_path(row["image_path"], where)


def _questions(path: Path, rows: list[dict[str, Any]]) -> Iterator[Entry]:
    labels: dict[PurePosixPath, str] = {}
    for number, row in enumerate(rows):
        where = f"{path}, record {number}"
        picture = _picture(row, where)
        match = QUESTION_TYPE.fullmatch(str(row.get("question_type")))
        if match is None:
            raise ValueError(
                f"{where} ({picture}) has question_type {row.get('question_type')!r}, expected "
                "image_tf_image_<real|fake>_ask_<real|fake>_<category>."
            )
        label, asked = match["label"], match["asked"]
        answer = str(row.get("answer"))
        if answer.strip().casefold() != ("yes" if label == asked else "no"):
            raise ValueError(f"{where} ({picture}) has the answer {answer!r} to whether a {label} image is {asked}.")
        if labels.setdefault(picture, label) != label:
            raise ValueError(
                f"{where} labels {picture} as {label}, but an earlier record does not. Download the list again."
            )
        if not isinstance(row.get("question"), str):
            raise ValueError(f"{where} ({picture}) has question {row.get('question')!r}, expected a text.")
        question = row["question"].replace(MARKER, "").strip()
        yield Entry(picture, f"ask_{asked}", label, match["category"], question, answer, [answer])


def _faults(path: Path, rows: list[dict[str, Any]]) -> Iterator[Entry]:
    for number, row in enumerate(rows):
        where = f"{path}, record {number}"
        picture = _picture(row, where)
        problems = row.get("problems") or {}
        kinds = [problems.get(kind) or [] for kind in ("regional", "global")] if isinstance(problems, dict) else [None]
        if not all(isinstance(kind, list) and all(isinstance(entry, dict) for entry in kind) for kind in kinds):
            raise ValueError(f"{where} ({picture}) has problems in a format other than {{regional: [...]}}.")
        found = [entry.get("desc") for kind in kinds for entry in kind or []]
        described = [text.strip() for text in found if isinstance(text, str) and text.strip()]
        if not described:
            raise ValueError(f"{where} ({picture}) does not describe a fault in problems.regional or problems.global.")
        question = str(row.get("question") or "").replace(MARKER, "").strip()
        yield Entry(picture, "faults", "fake", None, question, " ".join(described), described)
