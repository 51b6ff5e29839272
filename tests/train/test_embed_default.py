"""What may become the embedded default, and what its answers are compared with."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from support.real_data import needs_real_data, real_data
from support.tiny_models import tiny_m2f2_det_llm

pytest.importorskip("trl")
pytest.importorskip("datasets")

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.evaluation.predictions import read_answers
from deepfake_detectors.train import embed_default as embedding
from deepfake_detectors.train.embed_default import control_answers

PARTS = ("detector", *embedding.STAGES)


@pytest.fixture
def arguments(tmp_path):
    for name in PARTS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "validation.json").write_text(json.dumps({"steps": 1, "metrics": {}}))
    folders = {name: str(tmp_path / name) for name in PARTS}
    return embedding.EmbedArguments(
        checkpoint=str(tmp_path / "whole"), target=str(tmp_path / "target"), facts=str(tmp_path / "facts"), **folders
    )


def test_an_incomplete_folder_is_refused(arguments, tmp_path):
    tiny_m2f2_det_llm(tmp_path / "whole")
    (tmp_path / "whole" / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"whole.*tokenizer\.json"):
        embedding.embed_default(arguments)
    assert not (tmp_path / "target").exists()


def test_a_stage_without_its_measurements_is_refused(arguments, tmp_path):
    tiny_m2f2_det_llm(tmp_path / "whole")
    (tmp_path / "stage2" / "validation.json").unlink()
    with pytest.raises(FileNotFoundError, match="stage2"):
        embedding.embed_default(arguments)
    assert not (tmp_path / "target").exists()


def test_calibration_behind_the_detector_is_refused(arguments, tmp_path):
    tiny_m2f2_det_llm(tmp_path / "whole", calibration={"scale": 2.0, "bias": 0.0})
    with pytest.raises(ValueError, match=r"\d\.\d.*mini_base"):
        embedding.embed_default(arguments)
    assert not (tmp_path / "target").exists()


def test_too_large_a_folder_is_refused(arguments, tmp_path, monkeypatch):
    tiny_m2f2_det_llm(tmp_path / "whole")
    monkeypatch.setattr(embedding, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="1000"):
        embedding.embed_default(arguments)
    assert not (tmp_path / "target").exists()


@needs_real_data
def test_control_gives_the_most_frequent_training_answer_without_looking():
    test = load_split("ddvqa", "test", real_data("ddvqa"), "c40_explain")
    keys = [f"{Path(name).parts[3]}_{Path(name).parts[-1]}" for name in test["id"]]
    questions = dict(zip(keys, test["question"], strict=True))
    asked = read_answers(real_data("ddvqa") / "predictions" / "DDVQA_exp_c40.jsonl")
    found = control_answers(asked, questions, str(real_data("ddvqa")))
    assert [replace(answer, text="") for answer in found] == [replace(answer, text="") for answer in asked]

    train = load_split("ddvqa", "train", real_data("ddvqa"), "c40_explain", {"questions": "stated"})
    counts = defaultdict(Counter)
    for question, answers in zip(train["question"], train["answers"], strict=True):
        counts[question.partition(" based on ")[0]].update(answers)
    given = defaultdict(set)
    for answer in found:
        given[questions[answer.key].partition(" based on ")[0]].add(answer.text)
    assert len(given) == 12
    for kind, texts in given.items():
        (text,) = texts
        assert counts[kind][text] == max(counts[kind].values())
