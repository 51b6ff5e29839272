import json

import pytest

from deepfake_detectors.evaluation.predictions import Answer, read_answers, read_references
from deepfake_detectors.evaluation.protocols.m2f2_det import (
    parse_picture_name,
    score_explanations,
    score_judgements,
)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_skipped_answers_flatter_the_published_accuracy_only():
    answers = [
        Answer("5_001", "The image is real."),
        Answer("0_001_002", "Hard to say."),
        Answer("0_003_004", "The image has unrealistic shadows, it is fake."),
    ]
    found = score_judgements(answers, resamples=20)
    assert found["counts"] == {"answers": 3, "scored": 2, "skipped": 1}
    assert found["metrics"]["accuracy"]["value"] == 1 / 2  # the substring "real" in "unrealistic"
    assert found["corrected"]["metrics"]["accuracy"]["value"] == 2 / 3
    assert found["corrected"]["per_manipulation"]["Deepfakes"]["undetermined"] == 1


def test_no_answer_with_a_verdict():
    found = score_judgements([Answer("5_001", "Hm."), Answer("0_001_002", "")], resamples=20)
    assert {entry["value"] for entry in found["metrics"].values()} == {None}
    assert "published parser" in found["undefined"]["f1"]
    assert found["corrected"]["metrics"]["accuracy"]["value"] == 0.0


@pytest.mark.parametrize("stem", ["face", "4_001_002", "5_001_002", "0_001", "0_a_b"])
def test_name_outside_the_convention(stem):
    with pytest.raises(ValueError, match=f"'{stem}'.*DD-VQA"):
        parse_picture_name(stem)


def test_end_marks_are_removed_and_nothing_else():
    assert Answer("5_001", "<s> Looks </n>real.</s>").clean_text == "Looks real."


def test_explanations_that_equal_their_references(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # pycocoevalcap brings Java programs along; none may be started
    references = {f"5_00{n}_0": [f"The {word} of the person looks very real ."] for n, word in enumerate("abc")}
    answers = [Answer(key[:5], f"<s> {texts[0]}</s>", key) for key, texts in references.items()]
    found = score_explanations(answers, references)
    for part in (found, found["corrected"]):
        assert part["metrics"]["ROUGE_L"]["value"] == 1.0
        assert part["metrics"]["Bleu_4"]["value"] == pytest.approx(1.0)
        assert part["metrics"]["CIDEr"]["value"] == pytest.approx(10.0)


def test_keys_must_match():
    answers = [Answer("5_001", "a", "5_001_0"), Answer("5_001", "b", "5_001_1")]
    with pytest.raises(ValueError, match=r"1 of 2 explanations.*5_001_1"):
        score_explanations(answers, {"5_001_0": ["a"]})
    with pytest.raises(ValueError, match=r"1 of 3 references.*5_002_0"):
        score_explanations(answers, {key: ["a"] for key in ("5_001_0", "5_001_1", "5_002_0")})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"image": "a.jpg", "text": "x"}\n{"image": ', "line 2: not valid JSON"),
        ('{"image": "a.jpg"}', "line 1: the field 'text' is None"),
        ('{"text": "x"}', "line 1: the field 'image' is None"),
        ("[1]", "expected an object, got list"),
        ('{"image": "a.jpg", "text": "x"}\n\n{"image": "a.jpg", "text": "y"}', "line 3: a.jpg"),
    ],
)
def test_broken_prediction_file(tmp_path, text, message):
    (tmp_path / "answers.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_answers(tmp_path / "answers.jsonl")


def test_references(tmp_path):
    path = write_lines(tmp_path / "r.jsonl", [{"5_001_0": {"question": "?", "answer": ["a", "b"]}}])
    assert read_references(path) == {"5_001_0": ["a", "b"]}
    with pytest.raises(ValueError, match="'5_001_0' has no list of reference answers"):
        read_references(write_lines(tmp_path / "s.jsonl", [{"5_001_0": {"question": "?"}}]))
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        read_references(tmp_path / "none.jsonl")
