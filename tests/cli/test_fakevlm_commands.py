"""FakeVLM from the command line: convert, detect with and without explanation, info."""

import json

import pytest
from transformers import LlavaForConditionalGeneration

from support.fakevlm_folders import convert_fakevlm, fakevlm_fields, read_config, write_stock_folder
from support.golden_files import golden_folder
from support.real_data import needs_real_data, real_data

FOLDER = golden_folder("fakevlm")


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return write_stock_folder(FOLDER, tmp_path_factory.mktemp("stock"))


def test_convert_original_weights_then_detect(shell, photos, tmp_path):
    sources = ["--source", FOLDER / "model_llava_format.safetensors", "--source", FOLDER / "tokenizer.json"]
    config = json.dumps(fakevlm_fields(read_config(FOLDER)))
    result = shell("convert", "fakevlm", *sources, "--output", tmp_path / "out", "--config", config)
    assert result.exit_code == 0, result.stderr
    arguments = ["detect", photos, "--model", tmp_path / "out", "--format", "json"]
    rows = [json.loads(line) for line in shell(*arguments).stdout.splitlines()]
    assert len(rows) == 3 and all(0 < row["fake_probability"] < 1 for row in rows)
    explained = [
        json.loads(line) for line in shell(*arguments, "--explain", "--max-new-tokens", 5).stdout.splitlines()
    ]
    assert all(isinstance(row["explanation"], str) for row in explained)
    assert [row["fake_probability"] for row in explained] == pytest.approx([r["fake_probability"] for r in rows])
    assert shell("info", "--model", tmp_path / "out").exit_code == 0


def test_convert_to_the_stock_layout(shell, stock, tmp_path):
    result = shell("convert", "fakevlm", "--source", stock, "--output", tmp_path / "out", "--format", "llava")
    assert result.exit_code == 0, result.stderr
    _, info = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    refused = shell("convert", "fakevlm", "--source", stock, "--output", tmp_path / "no", "--format", "gguf")
    assert refused.exit_code == 1 and "'fakevlm', 'llava'" in refused.stderr
    assert not (tmp_path / "no").exists()


def test_a_stock_folder_names_the_convert_command(shell, stock, photos):
    result = shell("detect", photos, "--model", stock)
    assert result.exit_code != 0 and "'llava'" in result.stderr and "deepfake-detectors convert" in result.stderr


@needs_real_data
def test_real_pictures_are_judged_and_explained(shell, tmp_path):
    pictures = sorted(real_data("faces_stylegan2").rglob("*.jpg"))[::40]
    model = convert_fakevlm(FOLDER, tmp_path / "out")
    arguments = ["--model", model, "--explain", "--max-new-tokens", 4, "--format", "json"]
    result = shell("detect", *pictures, *arguments)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and len(rows) == len(pictures) > 1
    assert all(0 < row["fake_probability"] < 1 and isinstance(row["explanation"], str) for row in rows)
    assert len({row["fake_probability"] for row in rows}) == len(rows)
