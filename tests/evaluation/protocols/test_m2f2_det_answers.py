"""Answers in the published prediction files' form, from the DD-VQA builder's test rows."""

import json

import pytest

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.evaluation.protocols.m2f2_det_answers import AnswerArguments, answer_rows, main, write_answers
from deepfake_detectors.modeling.prompting_m2f2_det import inference_prompt, judgement_prompt
from deepfake_detectors.outputs import OutputInUseError, lock_beside
from support.ddvqa_tree import stems, write_tree
from support.tiny_models import m2f2_det_llm, m2f2_det_processor, tiny_m2f2_det, tiny_m2f2_det_llm


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("ddvqa"), stems(range(0, 2)), stems(range(2, 4)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_m2f2_det_llm(tmp_path_factory.mktemp("llm"))


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_judgement_lines(tree, folder, tmp_path):
    output = tmp_path / "new" / "DDVQA_det_c40.jsonl"
    arguments = ["--model", folder, "--task", "judgement", "--data_dir", tree, "--output", output]
    main([str(argument) for argument in [*arguments, "--max_new_tokens", 4]])
    lines = lines_of(output)
    assert [line["image"] for line in lines] == sorted(f"{stem}.jpg" for stem in stems(range(2, 4)))
    assert {line["prompt"] for line in lines} == {judgement_prompt()}
    assert all(set(line) == {"image", "prompt", "text", "metadata"} for line in lines)
    assert all(line["text"].startswith("<s>") for line in lines)


def test_explanation_lines_answer_the_reference_keys(tree, folder, tmp_path):
    output = tmp_path / "DDVQA_exp_c40.jsonl"
    write_answers(AnswerArguments(str(folder), str(output), "explanation", str(tree), max_new_tokens=4))
    references = [json.loads(line) for line in (tree / "splits" / "test_explanation.jsonl").read_text().splitlines()]
    expected = [(key, entry["question"]) for row in references for key, entry in row.items()]
    lines = lines_of(output)
    assert [(line["key"], line["prompt"]) for line in lines] == [(k, inference_prompt(q)) for k, q in expected]
    assert all(line["image"] == line["key"].rsplit("_", 1)[0] + ".jpg" for line in lines)


def test_shared_prefill_writes_what_separate_prompts_give(tree):
    model, processor = m2f2_det_llm(), m2f2_det_processor()
    rows = load_split("ddvqa", "test", str(tree), "c40_explain").select(range(4))
    together = [line["text"] for line in answer_rows(model, processor, rows, "explanation", max_new_tokens=6)]
    alone = [
        next(answer_rows(model, processor, rows.select([i]), "explanation", max_new_tokens=6))["text"]
        for i in range(len(rows))
    ]
    assert together == alone


def test_errors(tree, folder, tmp_path):
    output = tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match="allowed are judgement, explanation"):
        write_answers(AnswerArguments(str(folder), str(output), "caption", str(tree)))
    verdict_only = tiny_m2f2_det(tmp_path / "verdict")
    with pytest.raises(ValueError, match=r"cannot explain.*M2F2DetForConditionalGeneration"):
        write_answers(AnswerArguments(str(verdict_only), str(output), "judgement", str(tree)))
    assert not output.exists()
    output.write_text("mine")
    with pytest.raises(ValueError, match="exists"):
        write_answers(AnswerArguments(str(folder), str(output), "judgement", str(tree)))
    assert output.read_text() == "mine"
    output.unlink()
    with lock_beside(output), pytest.raises(OutputInUseError, match="process"):
        write_answers(AnswerArguments(str(folder), str(output), "judgement", str(tree), limit=1))
    assert not output.exists()
