"""The questions and answers of DD-VQA: its lists, and its training questions in the words of the test questions.

The annotators were asked "Do the person's eyes look real/fake?". M2F2-Det's explanations are trained and tested on
"The eyes in the image are fake, tell me why. ...", which states the verdict and asks why; its training file is not
published, so its questions are put together here, from the wording of the test file's questions alone. No test answer
is used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ._files import parse_json_lines, read_json, read_table, read_text, require_folder

__all__ = [
    "PARTS",
    "REAL_TYPE",
    "Entry",
    "read_annotations",
    "read_explanations",
    "read_judgements",
    "stated_answer",
    "stated_question",
]

REAL_TYPE = "5"  # with what the names of real pictures start
JUDGE_FILE = "splits/train_DDVQA_format_judge_only.json"
EXPLANATION_FILE = "splits/test_explanation.jsonl"
ANNOTATION_FOLDER = "annotations/train_set"
MARKERS = ("<image>", "<deepfake>")  # the model's own placeholders, which its processor puts back

PARTS = ("skin", "eyebrows", "eyes", "nose", "mouth")  # in the order of the annotators' questionnaire
WHOLE_QUESTION = "Does the image looks real/fake?"
PART_QUESTION = re.compile(r"^Do(?:es)? the person's (\w+) looks? real/fake\?$")
VERDICT_SENTENCE = re.compile(r"^(?:The image|The person's \w+) looks? (?:real|fake)\.\s*")
REASON = re.compile(r"The person's \w+ looks? [\w ]*?(?:real|fake) because\s+(\w)")

# The questions about fakes give an example of an answer each.
FAKE_EXAMPLES = {
    "skin": "The skin is overly smooth and lacks of details, such as skin texture. ",
    "eyebrows": "The eyebrows look asymmetric. ",
    "eyes": "The eyes look unnaturally asymmetric. ",
    "nose": "The nose lacks of subtle details, such as pores, fine lines. ",
    "mouth": "The mouth is misaligned with other facial features. ",
}


class Entry(NamedTuple):
    """A question about a picture.

    Args:
        picture: file name without extension.
        name: of the question, unique for the picture.
        question: without the model's markers.
        answers: one or more.
    """

    picture: str
    name: str
    question: str
    answers: list[str]


def read_judgements(root: Path, remedy: str) -> Iterator[Entry]:
    """Read the real/fake conversations on the training pictures.

    Raises:
        FileNotFoundError: if the list is missing.
        ValueError: naming it, for a record of another form, or an answer against the label in the picture's name.
    """
    asked: Counter[str] = Counter()
    path = root / JUDGE_FILE
    records = read_json(path, remedy)
    for number, record in enumerate(records if isinstance(records, list) else [records]):
        where = f"{path}, record {number}"
        try:
            stem = Path(record["image"]).stem
            question, answer = (str(turn["value"]) for turn in record["conversations"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where} should have an image and one question with its answer.") from error
        label = "real" if stem.startswith(f"{REAL_TYPE}_") else "fake"
        if label not in answer:
            raise ValueError(f"{path} says {answer!r} of {stem}, which is {label} by its name. Fetch this file again.")
        yield Entry(stem, f"judge/{asked[stem]}", _without_markers(question), [answer])
        asked[stem] += 1


def read_annotations(root: Path, remedy: str) -> Iterator[Entry]:
    """Read the questions and answers on the training pictures; errors as in `read_judgements`."""
    folder = require_folder(root / ANNOTATION_FOLDER, "one folder of annotations per manipulation", remedy)
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        path = kind / f"{kind.name}.json"
        for stem, questions in read_table(path, remedy).items():
            for number, record in questions.items():
                yield _explanation(stem, number, record, f"{path}, {stem}")


def read_explanations(root: Path, remedy: str) -> Iterator[Entry]:
    """Read the questions and reference answers on the test pictures; errors as in `read_judgements`."""
    path = root / EXPLANATION_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, but this config reads it. {remedy}")
    for where, records in parse_json_lines(read_text(path), str(path)):
        if not isinstance(records, dict):
            raise ValueError(f"{where} is not a JSON object. Fetch this file again.")
        for key, record in records.items():
            stem, _, number = key.rpartition("_")
            yield _explanation(stem, number, record, where)


def _explanation(stem: str, number: str, record: Any, where: str) -> Entry:
    fields = record if isinstance(record, dict) else {}
    question, answers = fields.get("question"), fields.get("answer")
    if not isinstance(question, str) or not isinstance(answers, list) or not answers:
        raise ValueError(f"{where}: question {number} should have a question and a list of answers.")
    return Entry(stem, f"explain/{number}", _without_markers(question), answers)


def _without_markers(question: str) -> str:
    for marker in MARKERS:
        question = question.replace(marker, "")
    return question.strip()


def stated_question(question: str, label: str, answer: str) -> str:
    """The test file's form of a training question.

    Args:
        question: as the annotators were asked, about the whole image or one of `PARTS`.
        label: `"real"` or `"fake"`.
        answer: what they answered; a question about the whole image names the parts that its answer speaks of.

    Raises:
        ValueError: for a question in other words.
    """
    if question == WHOLE_QUESTION:
        named = sorted((answer.find(part), part) for part in PARTS if part in answer)
        parts = ", ".join(part for _, part in named) or ", ".join(PARTS)
        return f"This image is {label}. Describe the authenticity of the image based on {parts}."
    asked = PART_QUESTION.match(question)
    if asked is None or asked[1] not in PARTS:
        raise ValueError(
            f"{question!r} has no stated form; expected {WHOLE_QUESTION!r}, or the same about the person's "
            f"{', '.join(PARTS)}. Use questions='collected'."
        )
    part = asked[1]
    verb = "are" if part.startswith("eye") else "is"
    start = f"The {part} in the image {verb} {label}, tell me why. Answer in one sentence in the format"
    if label == "real":
        return f'{start}"The person has naturally …… {part}."'
    # The questions about eyes have "like" at another place.
    early, late = (" like", "") if part == "eyes" else ("", " like")
    return (
        f'{start}"The {part} ……"{early}. Instead of saying, "The {part} {verb} fake because" '
        f'directly answer why{late} "{FAKE_EXAMPLES[part]}"'
    )


def stated_answer(answer: str) -> str:
    """The answer without what the stated question has said already: the verdict, and that a reason follows."""
    words = VERDICT_SENTENCE.sub("", answer.strip())
    words = REASON.sub(lambda found: found[1].upper(), words).strip()
    return words or answer.strip()
