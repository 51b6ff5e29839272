"""LVLM-DFD's prompts, segment by segment, its answers as strings, and how they are read."""

import json

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.modeling.processing_lvlm_dfd import QUESTION, REPLY, score_sentence
from deepfake_detectors.modeling.verdict_parsing import parse_answer
from support.golden_files import golden_folder
from support.lvlm_dfd_folders import convert_golden, read_config
from support.lvlm_dfd_golden_runs import pictures_of

FOLDER = golden_folder("lvlm_dfd")
GOLDEN = read_config(FOLDER)
INFERENCE, STOP = GOLDEN["meta"]["inference"], GOLDEN["meta"]["stop_rule"]
CASES = json.loads((FOLDER / "verdict_cases.json").read_text())["cases"]
PICTURES = pictures_of(FOLDER)
CODES = {"real": 0, "fake": 1, None: None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return convert_golden(FOLDER, tmp_path_factory.mktemp("lvlm"))


@pytest.fixture(scope="module")
def model(folder):
    return AutoModel.from_pretrained(folder)


@pytest.fixture
def processor(folder):
    found = AutoProcessor.from_pretrained(folder)
    found.question = GOLDEN["question"]
    return found


def test_lvlm_dfd_question(folder, processor):
    """A converted folder asks the published question; another one is asked as it was recorded."""
    assert AutoProcessor.from_pretrained(folder).question == QUESTION
    assert processor.dialogue_prompt() == GOLDEN["question"] + REPLY


@pytest.mark.parametrize("entry", INFERENCE, ids=lambda entry: f"image_{entry['image']}")
def test_lvlm_dfd_prompt_segments(entry, model, processor):
    inputs = processor(images=PICTURES[entry["image"]], text=processor.dialogue_prompt())
    pictures = model.encode_pictures(inputs["pixel_values"])
    probability = pictures.evidence.probabilities[0, 1].item()
    assert probability == pytest.approx(entry["fake_prob"], abs=1e-5)
    percent = int(entry["percent"])
    assert int(100 * probability) == percent
    assert score_sentence(percent) == entry["middle_string"]
    lengths = [
        1,
        len(inputs["prompt_start_ids"]) - 1,
        pictures.image_tokens.shape[1],
        int((inputs["score_prompt_ids"][percent] >= 0).sum()),
        pictures.prompt_tokens.shape[1],
        pictures.score_tokens.shape[1],
        inputs["input_ids"].shape[1],
    ]
    assert lengths == entry["segment_lengths"]


def answers(model, processor, pictures, **options):
    text = processor.tokenize([processor.dialogue_prompt()] * len(pictures))
    return model.generate(**text, **processor(images=pictures), **options)


@pytest.mark.parametrize("together", [True, False], ids=["one_batch", "single"])
def test_lvlm_dfd_greedy_text(together, model, processor):
    pictures = [PICTURES[entry["image"]] for entry in INFERENCE]
    lengths = {entry["max_new_tokens"] for entry in INFERENCE}
    assert len(lengths) == 1
    groups = [pictures] if together else [[picture] for picture in pictures]
    rows = [row for group in groups for row in answers(model, processor, group, max_new_tokens=max(lengths)).tolist()]
    assert rows == [entry["generated_ids"] for entry in INFERENCE]
    processor.legacy_trim = True
    assert processor.decode_answers(torch.tensor(rows)) == [entry["text"] for entry in INFERENCE]


def test_lvlm_dfd_stop_rule_and_trimming(model, processor):
    stop, kept = STOP["stop_token_id"], model.config.stop_token_id
    model.config.stop_token_id = processor.stop_token_id = stop
    try:
        rows = answers(model, processor, PICTURES, max_new_tokens=64)
    finally:
        model.config.stop_token_id = kept
    row = rows[STOP["image"]].tolist()
    length = row.index(stop) + 1
    assert row[:length] == STOP["generated_ids"]
    assert set(row[length:]) <= {processor.tokenizer.eos_token_id}
    # Every row stops by itself; the official code looks at one.
    assert any(set(other.tolist()[length:]) - {processor.tokenizer.eos_token_id} for other in rows)
    robust = processor.decode_answers(rows)[STOP["image"]]
    processor.legacy_trim = True
    assert processor.decode_answers(rows)[STOP["image"]] == STOP["text_after_trim"]
    # Only the stop token goes, not the word in front of it.
    assert robust == processor.tokenizer.decode(row[: length - 1], skip_special_tokens=True).strip()
    assert robust != STOP["text_after_trim"]


def test_lvlm_dfd_batch_that_the_official_code_refuses(model, processor):
    batch = processor(images=PICTURES, text=[processor.dialogue_prompt()] * len(PICTURES), padding_side="right")
    assert GOLDEN["meta"]["inference_batch2"].startswith("RuntimeError")
    output = model(**batch)
    assert len(output.logits) == len(PICTURES)


def test_lvlm_dfd_verdict_needs_no_language_model(folder, model, processor):
    inputs = processor(images=PICTURES)
    verdict = AutoModelForDeepfakeDetection.from_pretrained(folder)
    assert type(verdict).__name__ == "LvlmDfdForDeepfakeDetection"
    ours, theirs = verdict.detect(**inputs), model.detect(**inputs)
    assert torch.equal(ours.logits, theirs.logits) and torch.equal(ours.mask, theirs.mask)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["response"][:40] or "empty")
def test_lvlm_dfd_legacy_verdict(case):
    assert CODES[parse_answer(case["response"], "legacy")] == case["pred"]
