"""Training questions in the words of the test questions."""

import json
import re

import pytest

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.dataset_scripts._ddvqa_questions import (
    PARTS,
    read_annotations,
    read_explanations,
    read_judgements,
    stated_answer,
    stated_question,
)
from support.ddvqa_tree import stems, write_tree
from support.real_data import needs_real_data, real_data

WHOLE = "Does the image looks real/fake?"
LIST = re.compile(r"(?<=based on ).*(?=\.$)")


def test_whole_image_names_the_parts_of_its_answer():
    answer = "The image looks fake. The nose is curved. The eyebrows are odd."
    assert stated_question(WHOLE, "fake", answer) == (
        "This image is fake. Describe the authenticity of the image based on nose, eyebrows."
    )
    assert LIST.search(stated_question(WHOLE, "real", "It is."))[0] == "skin, eyebrows, eyes, nose, mouth"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The person's nose looks fake. The person's nose looks a bit fake because the nose lookes curved.",
         "The nose lookes curved."),
        ("The image looks real. The person has smooth skin.", "The person has smooth skin."),
        ("The image looks fake.", "The image looks fake."),
    ],
)  # fmt: skip
def test_answers_do_not_repeat_the_verdict(answer, expected):
    assert stated_answer(answer) == expected


@pytest.mark.parametrize("question", ["Is it real?", "Do the person's ears look real/fake?"])
def test_other_questions_are_refused(question):
    with pytest.raises(ValueError, match="has no stated form"):
        stated_question(question, "real", "")


def test_other_forms_are_refused(tmp_path):
    root = write_tree(tmp_path, stems(range(2)), stems(range(10, 11)))
    with pytest.raises(ValueError, match="questions is 'spoken', expected one of collected, stated"):
        load_split("ddvqa", "train", root, "c40_explain", {"questions": "spoken"})


@needs_real_data
def test_real_training_rows_are_asked_exactly_as_the_test_rows():
    source = real_data("ddvqa")
    lines = (source / "splits" / "test_explanation.jsonl").read_text(encoding="utf-8").splitlines()
    published = {LIST.sub("...", entry["question"]) for line in lines for entry in json.loads(line).values()}
    rows = load_split("ddvqa", "train", source, "c40_explain", {"questions": "stated"})
    made = {LIST.sub("...", question) for question in rows["question"]}
    assert made == published
    assert len(made) == 2 * (1 + len(PARTS))
    for question, answers, label in zip(rows["question"], rows["answers"], rows["label"], strict=True):
        assert (" real" if label == 0 else " fake") in question.split(".")[0].split(",")[0]
        assert not any(re.match("The (image|person's \\w+) looks? (real|fake)\\.", answer) for answer in answers)
    test = load_split("ddvqa", "test", source, "c40_explain", {"questions": "stated"})
    assert test["question"][0] in {entry["question"] for line in lines for entry in json.loads(line).values()}


@pytest.mark.parametrize(
    ("read", "file", "content"),
    [
        (read_judgements, "splits/train_DDVQA_format_judge_only.json", '{"image": "5_000.jpg"}'),
        (
            read_judgements,
            "splits/train_DDVQA_format_judge_only.json",
            '[{"image": "5_000.jpg", "conversations": [1]}]',
        ),
        (read_explanations, "splits/test_explanation.jsonl", "[1]"),
        (read_explanations, "splits/test_explanation.jsonl", '{"5_000_0": {"question": "why?", "answer": []}}'),
        (read_annotations, "annotations/train_set/5/5.json", '{"5_000": {"0": {"question": 1, "answer": ["a"]}}}'),
    ],
)
def test_malformed_lists_are_named(tmp_path, read, file, content):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        list(read(tmp_path / "annotations" / "train_set" if read is read_annotations else path, ""))
