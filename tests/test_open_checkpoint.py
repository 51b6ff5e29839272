"""Stock folders and Hub ids: whose weights they hold is said by their id, else by the caller, else they are asked."""

import json
import logging

import pytest
import transformers
from typer.testing import CliRunner

import deepfake_detectors
from deepfake_detectors.app.models import converse_about
from deepfake_detectors.examination.judging import Judge
from deepfake_detectors.families import FAMILIES, family_of
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.modeling.configuration_chat_vlm import FAMILY_FIELD
from deepfake_detectors.modeling.detection import UnconvertedCheckpointError
from deepfake_detectors.modeling.modeling_chat_vlm import ChatVlmForDeepfakeDetection
from deepfake_detectors.pipelines import load_detector
from deepfake_detectors_cli import app
from support.pictures import random_pictures
from support.tiny_models import chat_vlm


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A chat model's folder without a word of ours, and what its detector says."""
    folder = tmp_path_factory.mktemp("stock")
    model, processor = chat_vlm("qwen3_vl")
    model.vlm.save_pretrained(folder)
    processor.stock.save_pretrained(folder)
    pictures = random_pictures(2)
    return folder, pictures, model.detect(**processor(images=pictures)).fake_probability.tolist()


@pytest.mark.parametrize(
    ("fields", "source", "family", "expected"),
    [
        ({"model_type": "llava"}, "lingcco/fakeVLM", None, "fakevlm"),
        ({"model_type": "llava"}, "somebody/copy", "fakevlm", "fakevlm"),
        ({"model_type": "llava"}, "somebody/copy", None, "chat_vlm"),
        ({"model_type": "qwen2_5_vl"}, "Qwen/Qwen2.5-VL-3B-Instruct", None, "chat_vlm"),
        ({"model_type": "qwen2_5_vl", FAMILY_FIELD: "chat_vlm"}, "somebody/detector", None, "chat_vlm"),
        ({"model_type": "m2f2_det"}, "somebody/detector", None, "m2f2_det"),
        ({"model_type": "m2f2_det"}, "somebody/detector", "m2f2_det", "m2f2_det"),
    ],
)
def test_family_of_a_folder(fields, source, family, expected):
    assert family_of(fields, source, family) is FAMILIES[expected]


@pytest.mark.parametrize(
    ("fields", "source", "family", "error", "names"),
    [
        ({"model_type": "llava"}, "CHELSEA234/llava-v1.5-7b-M2F2-Det", None, UnconvertedCheckpointError, "m2f2_det"),
        ({"model_type": "qwen2_5_vl"}, "Qwen/x", "m2f2_det", UnconvertedCheckpointError, "convert"),
        ({"model_type": "qwen2_5_vl"}, "Qwen/x", "fakevlm", ValueError, "qwen2_5_vl"),
        ({"model_type": "m2f2_det"}, "somebody/detector", "fakevlm", ValueError, "m2f2_det"),
        ({"model_type": "bert"}, "somebody/text", None, ValueError, "'bert'"),
        ({"model_type": "bert"}, "somebody/text", "chat_vlm", ValueError, "'bert'"),
        ({"model_type": "llava"}, "somebody/copy", "nonsense", ValueError, "nonsense"),
        ({"model_type": "llava", "mm_vision_tower": "clip"}, "a/b", None, UnconvertedCheckpointError, "LLaVA"),
    ],
)
def test_folders_that_are_refused(fields, source, family, error, names):
    with pytest.raises(error) as caught:
        family_of(fields, source, family)
    assert names in str(caught.value)


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: deepfake_detectors.pipeline(model=folder),
        lambda folder: deepfake_detectors.pipeline(model=folder, family="chat_vlm"),
        lambda folder: transformers.pipeline("deepfake-detection", model=str(folder)),
        lambda folder: load_detector(folder),
    ],
    ids=["ours", "family", "stock call", "command line"],
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_stock_folder_is_a_detector(stock, load, batch_size):
    folder, pictures, expected = stock
    rows = load(folder)(pictures, batch_size=batch_size)
    assert [row["fake_probability"] for row in rows] == pytest.approx(expected, abs=1e-5)


def test_the_log_says_that_nobody_has_measured_it(stock, tmp_path, caplog):
    model, processor = chat_vlm("qwen2_5_vl")
    model.vlm.save_pretrained(tmp_path)
    processor.stock.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="deepfake_detectors.families"):
        for _ in range(2):
            open_checkpoint(tmp_path)
    (record,) = caplog.records
    assert "uncalibrated" in record.getMessage() and str(tmp_path) in record.getMessage()


def test_a_loaded_model_needs_no_family(stock):
    model, processor = chat_vlm("qwen3_vl")
    with pytest.raises(ValueError, match="family"):
        deepfake_detectors.pipeline(model=model, processor=processor, family="chat_vlm")


def test_pipeline_rows_explain_and_record_errors(stock):
    folder, pictures, expected = stock
    detector = deepfake_detectors.pipeline(model=folder)
    inputs = [pictures[0], "missing.png", pictures[1]]
    options = {"explain": True, "generate_kwargs": {"max_new_tokens": 3}, "on_error": "record", "batch_size": 3}
    first, broken, last = detector(inputs, **options)
    assert [first["fake_probability"], last["fake_probability"]] == pytest.approx(expected, abs=1e-5)
    assert isinstance(first["explanation"], str)
    assert broken["input"] == "missing.png"


def test_info_reads_no_weights(stock):
    folder, *_ = stock
    (weights,) = folder.glob("*.safetensors")
    hidden = weights.rename(weights.with_suffix(".hidden"))
    try:
        info = deepfake_detectors.model_info(folder)
    finally:
        hidden.rename(weights)
    assert (info["family"], info["class"]) == ("chat_vlm", ChatVlmForDeepfakeDetection.__name__)
    assert info["explains"] and not info["localizes"]


def test_three_turns_typed_are_three_calls_of_the_pipeline(stock, tmp_path):
    folder, pictures, _ = stock
    pictures[0].save(tmp_path / "face.png")
    questions = ["Is it real?", "Why?", "What about the eyes?"]
    command = ["chat", str(tmp_path / "face.png"), "--model", str(folder), "--max-new-tokens", "5"]
    result = CliRunner().invoke(app, command, input="\n".join(questions) + "\n")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["question"] for row in rows] == questions
    detector, history = deepfake_detectors.pipeline(model=folder), []
    for row in rows:
        options = {"explain": True, "question": row["question"], "generate_kwargs": {"max_new_tokens": 5}}
        assert detector(pictures[0], history=history, **options)["explanation"] == row["answer"]
        history.append((row["question"], row["answer"]))


def test_the_page_talks_with_a_stock_folder(stock, tmp_path):
    folder, pictures, _ = stock
    judge = Judge(folder)
    (reading,) = judge.readings()
    conversation = converse_about(judge, pictures[0], reading)
    (suggested,) = judge.pipeline.processor.suggested_questions("fake")
    expected = judge.pipeline(pictures[0], explain=True, generate_kwargs={"max_new_tokens": 4})["explanation"]
    assert conversation.ask(suggested, max_new_tokens=4) == expected
