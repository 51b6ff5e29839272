"""Arrays of answers that FakeVLM's scripts write, scored with the labels of FakeClue's test list."""

import json

import pytest
from typer.testing import CliRunner

from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.evaluation.result_files import read_labels, read_result_array
from deepfake_detectors_cli import app

QUESTION = "Does the image looks real/fake?"
ANSWERS = {  # path in the list -> label (1 = real), category, reference, what was answered
    "doc/fake/1.png": (0, "doc", "This is a fake image. The text is bent.", "This is a fake image. The text is odd."),
    "doc/real/1.png": (1, "doc", "This is a real image. Sharp.", "This is a real image. Clear."),
    "ff++/fake/1.png": (0, "deepfake", "This is a fake image. Blurred.", "This is a real image. Natural."),
    "ff++/real/2.png": (1, "deepfake", "This is a real image. Natural.", "This is a real image. Natural."),
}


@pytest.fixture
def labels(tmp_path):
    records = [
        {
            "image": name,
            "label": label,
            "cate": category,
            "conversations": [{"from": "human", "value": f"<image>{QUESTION}"}, {"from": "gpt", "value": reference}],
        }
        for name, (label, category, reference, _) in ANSWERS.items()
    ]
    return write(tmp_path / "test.json", records)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def answers(prefix="/root/playground/data/test/", field="output", before=""):
    return [{"image_path": prefix + name, field: before + said} for name, (*_, said) in ANSWERS.items()]


@pytest.mark.parametrize(
    ("prefix", "field", "before"),
    [
        ("", "output", ""),
        ("data/test/", "output", " "),
        ("/root/data/test/", "output", f"{QUESTION}\n"),
        ("C:\\data\\", "response", "\n"),
    ],
)
def test_answers_get_their_labels(labels, tmp_path, prefix, field, before):
    file = write(tmp_path / "out.json", answers(prefix, field, before))
    rows = read_result_array(file, read_labels(labels), labels)
    assert {row.id: (row.label, row.category, row.text.strip()) for row in rows} == {
        name: (["fake", "real"][label], category, said) for name, (label, category, _, said) in ANSWERS.items()
    }


def test_what_stands_beside_the_known_fields_is_left_alone(labels, tmp_path):
    rows = [{**row, "id": number, "text": "other", "label": "fake"} for number, row in enumerate(answers())]
    found = read_result_array(write(tmp_path / "out.json", rows), read_labels(labels), labels)
    assert [(row.label, row.text) for row in found] == [
        (["fake", "real"][label], said) for label, _, _, said in ANSWERS.values()
    ]
    renamed = [{"image": row["image_path"], "id": row["image_path"], "response": row["output"]} for row in rows]
    found = read_result_array(write(tmp_path / "out.json", renamed), read_labels(labels), labels)
    assert [row.text for row in found] == [said for *_, said in ANSWERS.values()]


def test_command_scores_and_compares_them(labels, tmp_path):
    file = write(tmp_path / "out.json", answers())
    command = ["evaluate", "--protocol", "paper:fakevlm", "--predictions", str(file), "--labels", str(labels)]
    result = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "report")])
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "report" / "results.json").read_text())
    assert found["metrics"]["accuracy"]["value"] == 0.75
    assert found["per_category"]["doc"]["accuracy"] == 1.0
    assert found["explanation"]["counts"]["explanations"] == 4
    assert found["explanation"]["metrics"]["rouge_l_f"]["value"] > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.append({"image_path": "doc/real/9.png", "output": "x"}),
            r"1 of 5 answers.*doc/real/9\.png",
        ),
        (lambda rows: rows.pop(), r"1 of 4 .*: ff\+\+/real/2\.png"),
        (lambda rows: rows.append(rows[0]), r"record 4: doc/fake/1\.png"),
        (lambda rows: rows[0].pop("output"), "the answer should be in one of output"),
        (lambda rows: rows[0].pop("image_path"), "the picture should be in one of image_path"),
        (  # another script's: its answers begin with another name, and two fields may be the answer
            lambda rows: rows.__setitem__(0, {"image": "doc/fake/1.png", "pred": "fake", "text": "This is fake."}),
            "'pred', 'text', and each may hold the answer",
        ),
        (  # LLaVA's own evaluation
            lambda rows: rows.__setitem__(
                0, {"question_id": 1, "prompt": "Is it real?", "text": "No.", "answer_id": 2}
            ),
            "has the fields 'question_id', 'prompt', 'text', 'answer_id'; the picture should be in one of image_path",
        ),
        (  # the test list itself
            lambda rows: rows.__setitem__(0, {"image": "doc/fake/1.png", "label": 0, "conversations": []}),
            "the answer should be in one of output",
        ),
        (lambda rows: rows[0].update(output=3), "the field 'output' is 3, expected a text"),
        (lambda rows: rows.insert(0, "text"), "record 0 is str, expected an object"),
        (lambda rows: rows.clear(), "should be a JSON array"),
        (lambda rows: rows[0].update(image_path="1.png"), r"1 of 4 answers.*1\.png"),  # three pictures have this name
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels, tmp_path, change, message):
    rows = answers()
    change(rows)
    file = write(tmp_path / "out.json", rows)
    with pytest.raises(ValueError, match=message):
        evaluate(predictions=file, labels=labels, protocol="paper:fakevlm")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"image": "a.png", "label": 1}], "the label of a.png is 1, expected 'real' or 'fake'"),
        ([{"image": "a.png", "label": "real"}] * 2, "record 1: a.png"),
        ([{"label": "real"}], "the field 'image' is None"),
        ({"a.png": "real"}, "should be a JSON array"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, records, message):
    with pytest.raises(ValueError, match=message):
        read_labels(write(tmp_path / "test.json", records))


def test_an_array_without_labels_says_what_it_needs(labels, tmp_path):
    file = write(tmp_path / "out.json", answers())
    with pytest.raises(ValueError, match=r"out\.json .*`labels`"):
        evaluate(predictions=file)
    with pytest.raises(ValueError, match=r"`labels`.*`predictions`"):
        evaluate(predictions=file, labels=labels, real_dir=tmp_path)
