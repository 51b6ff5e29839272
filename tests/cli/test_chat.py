"""`chat` as a user types it: several turns on one picture."""

import json

import pytest
from typer.testing import CliRunner

from deepfake_detectors import pipeline
from deepfake_detectors_cli import app
from support.pictures import random_pictures
from support.tiny_models import tiny_m2f2_det, tiny_m2f2_det_llm

QUESTIONS = ["Is it real?", "What about the eyes?", "Nose?"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_m2f2_det_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture
def picture(tmp_path):
    random_pictures(1)[0].save(tmp_path / "face.png")
    return str(tmp_path / "face.png")


def test_three_turns_equal_three_calls_with_the_same_history(model, picture):
    command = ["chat", picture, "--model", str(model), "--max-new-tokens", "5"]
    result = CliRunner().invoke(app, command, input="\n".join(QUESTIONS) + "\n\nnot asked\n")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["question"] for row in rows] == QUESTIONS
    judge = pipeline("deepfake-detection", model=str(model))
    history = []
    for row in rows:
        options = {"history": history} if history else {}
        alone = judge(
            picture, explain=True, question=row["question"], generate_kwargs={"max_new_tokens": 5}, **options
        )
        assert row["answer"] == alone["explanation"]
        history = [*history, (row["question"], row["answer"])]
    assert "P(fake)" in result.stderr


def test_a_model_without_words_and_a_broken_picture_are_refused(model, picture, tmp_path):
    verdict = tiny_m2f2_det(tmp_path / "verdict")
    refused = CliRunner().invoke(app, ["chat", picture, "--model", str(verdict)], input="Is it real?\n")
    assert refused.exit_code == 2 and "M2F2DetForConditionalGeneration" in refused.stderr
    (tmp_path / "broken.png").write_bytes(b"no picture")
    refused = CliRunner().invoke(app, ["chat", str(tmp_path / "broken.png"), "--model", str(model)], input="Why?\n")
    assert refused.exit_code in (1, 2) and "broken.png" in refused.stderr
