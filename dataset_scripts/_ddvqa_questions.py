"""The questions and answers of DD-VQA: its lists, and its training questions rephrased like the test questions.

The annotators were asked "Do the person's eyes look real/fake?". M2F2-Det's explanations are trained and tested on
"The eyes in the image are fake, tell me why. ...", which states the verdict and asks why. Its training conversations
are `train_DDVQA_format.json`. For copies without that file the questions are put together here, from the wording of
the test file's questions alone. No test answer is used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ._files import parse_json_lines, read_json, read_table, read_text, require_folder

__all__ = [
    "PARTS",
    "REAL_TYPE",
    "Entry",
    "explaining_turns",
    "read_annotations",
    "read_conversations",
    "read_explanations",
    "read_judgements",
    "stated_answer",
    "stated_question",
]

REAL_TYPE = "5"  # prefix of the names of real images
MARKERS = ("<image>", "<deepfake>")  # the model's own placeholders, which its processor puts back

PARTS = ("skin", "eyebrows", "eyes", "nose", "mouth")  # in the order of the annotators' questionnaire
WHOLE_QUESTION = "Does the image looks real/fake?"
PART_QUESTION = re.compile(r"^Do(?:es)? the person's (\w+) looks? real/fake\?$")
VERDICT = re.compile(r"^The image looks (real|fake)\b")
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
    """A question about an image, or a conversation about it.

    Args:
        picture: file name without extension.
        name: of the question, unique for the image.
        question: without the model's markers; the first one of a conversation.
        answers: one or more.
        later: the questions and answers that follow in a conversation.
    """

    picture: str
    name: str
    question: str
    answers: list[str]
    later: tuple[tuple[str, str], ...] = ()


def read_judgements(path: Path, remedy: str) -> Iterator[Entry]:
    """Read the real/fake conversations about the training images, with one question each.

    Raises:
        FileNotFoundError: if the list is missing.
        ValueError: for a record in another format, or an answer that contradicts the label in the file name; the
            message states it.
    """
    for where, stem, number, turns in _read_records(path, remedy):
        if len(turns) != 1:
            raise ValueError(
                f"{where} has {len(turns)} questions, expected one with its answer. Download this file again."
            )
        (question, answer) = turns[0]
        if _label(stem) not in answer:
            raise _contradiction(path, stem, answer)
        yield Entry(stem, f"judge/{number}", question, [answer])


def read_conversations(path: Path, remedy: str) -> Iterator[Entry]:
    """Read the judging and explaining conversations about the training images, with any number of turns.

    Raises:
        FileNotFoundError: if the list is missing.
        ValueError: for a record in another format, or a verdict that contradicts the label in the file name; the
            message states it.
    """
    for _, stem, number, turns in _read_records(path, remedy):
        for _, answer in turns:
            verdict = VERDICT.match(answer)
            if verdict and verdict[1] != _label(stem):
                raise _contradiction(path, stem, answer)
        (question, answer), *later = turns
        yield Entry(stem, f"converse/{number}", question, [answer], tuple(later))


def explaining_turns(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The turns of conversations that explain, one entry each; answers that only judge are left out."""
    asked: Counter[str] = Counter()
    for entry in entries:
        for question, answer in ((entry.question, entry.answers[0]), *entry.later):
            if VERDICT.sub("", answer).strip(" ."):
                yield Entry(entry.picture, f"explain/{asked[entry.picture]}", question, [answer])
                asked[entry.picture] += 1


def _read_records(path: Path, remedy: str) -> Iterator[tuple[str, str, int, list[tuple[str, str]]]]:
    """Yield the place of a record, its image, its number for that image, and its questions with their answers."""
    seen: Counter[str] = Counter()
    records = read_json(path, remedy)
    for number, record in enumerate(records if isinstance(records, list) else [records]):
        where = f"{path}, record {number}"
        try:
            stem = _stem(record["image"])
            speakers = [turn["from"] for turn in record["conversations"]]
            texts = [turn["value"] for turn in record["conversations"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where} should have an image and conversations. Download this file again.") from error
        if not texts or speakers != ["human", "gpt"] * (len(texts) // 2) or not all(isinstance(t, str) for t in texts):
            raise ValueError(
                f"{where} has turns from {speakers}, expected questions from human, each with an answer from gpt. "
                "Download this file again."
            )
        questions = [_without_markers(text) for text in texts[::2]]
        yield where, stem, seen[stem], list(zip(questions, texts[1::2], strict=True))
        seen[stem] += 1


@lru_cache(maxsize=4096)  # a picture stands in several records
def _stem(image: str) -> str:
    return PurePosixPath(image).stem


def _label(stem: str) -> str:
    return "real" if stem.startswith(f"{REAL_TYPE}_") else "fake"


def _contradiction(path: Path, stem: str, answer: str) -> ValueError:
    return ValueError(
        f"{path} labels {stem} as {answer!r}, but by its name it is {_label(stem)}. Download this file again."
    )


def read_annotations(folder: Path, remedy: str) -> Iterator[Entry]:
    """Read the questions and answers about the training images; errors as in `read_judgements`."""
    require_folder(folder, "one folder of annotations per manipulation", remedy)
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        path = kind / f"{kind.name}.json"
        for stem, questions in read_table(path, remedy).items():
            for number, record in questions.items():
                yield _explanation(stem, number, record, f"{path}, {stem}")


def read_explanations(path: Path, remedy: str) -> Iterator[Entry]:
    """Read the questions and reference answers about the test images; errors as in `read_judgements`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, but this config reads it. {remedy}")
    for where, records in parse_json_lines(read_text(path), str(path)):
        if not isinstance(records, dict):
            raise ValueError(f"{where} is not a JSON object. Download this file again.")
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
    """Return a training question in the format of the test file.

    Args:
        question: as the annotators were asked, about the whole image or one of `PARTS`.
        label: `"real"` or `"fake"`.
        answer: what they answered; a question about the whole image lists the parts that its answer mentions.

    Raises:
        ValueError: for a question with another wording.
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
    """Return the answer without what the stated question already contains: the verdict and the start of the reason."""
    words = VERDICT_SENTENCE.sub("", answer.strip())
    words = REASON.sub(lambda found: found[1].upper(), words).strip()
    return words or answer.strip()
