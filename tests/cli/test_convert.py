"""`convert` as a user types it, on files of the official form."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from deepfake_detectors import FAMILIES, AutoModelForDeepfakeDetection
from support.golden_files import golden_folder
from support.hub_server import use_hub
from support.m2f2_det_folders import cosine_fields, read_config
from support.pictures import random_pictures


@pytest.fixture(scope="module")
def fields() -> dict:
    return cosine_fields(read_config(golden_folder("m2f2_det") / "llava_detector"))


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "M2F2_Det_densenet121.pth"
    torch.save(load_file(golden_folder("m2f2_det") / "llava_detector" / "model.safetensors"), path)
    return path


def test_converted_folder_detects(shell, official: Path, fields: dict, tmp_path: Path) -> None:
    output = tmp_path / "new" / "m2f2"
    result = shell("convert", "m2f2_det", "--source", official, "--output", output, "--config", json.dumps(fields))
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    assert f"--model {output}" in result.stderr
    random_pictures(1)[0].save(tmp_path / "face.png")
    assert shell("detect", tmp_path / "face.png", "--model", output).exit_code == 0


def test_config_from_a_file_and_variant(shell, official: Path, fields: dict, tmp_path: Path) -> None:
    (tmp_path / "fields.json").write_text(json.dumps(fields))
    given = ["convert", "m2f2_det", "--source", official, "--config", tmp_path / "fields.json", "--output"]
    assert shell(*given, tmp_path / "a", "--variant", "cosine").exit_code == 0
    result = shell(*given, tmp_path / "b", "--variant", "bridge")
    assert result.exit_code == 1 and "--variant" in result.stderr
    assert not (tmp_path / "b").exists()


def test_files_that_do_not_fit(shell, official: Path, tmp_path: Path) -> None:
    result = shell("convert", "m2f2_det", "--source", official, "--output", tmp_path / "out")
    assert result.exit_code == 1, "the released sizes are not those of this tiny file"
    assert result.stderr.startswith("Error: ") and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_overwrite(shell, official: Path, fields: dict, tmp_path: Path) -> None:
    given = ["convert", "m2f2_det", "--source", official, "--output", tmp_path / "out", "--config", json.dumps(fields)]
    assert shell(*given).exit_code == 0
    stale = tmp_path / "out" / "model-00002-of-00002.safetensors"
    stale.write_bytes(b"old")
    (tmp_path / "out" / "README.md").write_text("mine")

    refused = shell(*given)
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr
    assert stale.exists()

    failed = shell(*given[:-1], "{}", "--overwrite")
    assert failed.exit_code == 1
    assert stale.exists(), "a failed conversion must leave the old checkpoint whole"

    assert shell(*given, "--overwrite").exit_code == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "processor_config.json",
    ]  # fmt: skip
    assert (tmp_path / "out" / "README.md").read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_unknown_family_names_the_known(shell, official: Path, tmp_path: Path) -> None:
    result = shell("convert", "m2f2", "--source", official, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "'m2f2'" in result.stderr and "m2f2_det" in result.stderr


def test_missing_source(shell, tmp_path: Path) -> None:
    result = shell("convert", "m2f2_det", "--source", tmp_path / "absent.pth", "--output", tmp_path / "out")
    assert result.exit_code == 2 and "absent.pth" in result.stderr


@pytest.mark.parametrize(("config", "message"), [("{", "not valid JSON"), ("absent.json", "cannot be read")])
def test_wrong_config(shell, official: Path, tmp_path: Path, config: str, message: str) -> None:
    result = shell("convert", "m2f2_det", "--source", official, "--output", tmp_path / "out", "--config", config)
    assert result.exit_code == 2 and message in result.stderr


def test_config_that_is_no_object(shell, official: Path, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    given = ["--output", tmp_path / "out", "--config", tmp_path / "list.json"]
    result = shell("convert", "m2f2_det", "--source", official, *given)
    assert result.exit_code == 2 and "expected a JSON object" in result.stderr


def test_output_that_is_a_file(shell, official: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    result = shell("convert", "m2f2_det", "--source", official, "--output", tmp_path / "out", "--overwrite")
    assert result.exit_code == 2
    assert (tmp_path / "out").read_text() == "mine"


def test_convert_option_of_another_family(shell, tmp_path):
    (tmp_path / "x.pth").write_bytes(b"")
    given = ["--source", tmp_path / "x.pth", "--output", tmp_path / "out", "--lora", "fold"]
    result = shell("convert", "m2f2_det", *given)
    assert result.exit_code == 2 and "m2f2_det" in result.stderr and "lora" in result.stderr
    result = shell("convert", "lvlm_dfd", *given[:-1], "melt")
    assert result.exit_code == 1 and "--lora is 'melt'" in result.stderr


def test_clip_by_its_hub_id(shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 28, "patch_size": 14, "projection_dim": 24,
    }  # fmt: skip
    torch.manual_seed(0)
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision)).eval()
    tower.save_pretrained(tmp_path / "clip")
    with use_hub(monkeypatch, tmp_path) as hub:
        api = HfApi(endpoint=hub.url)
        api.create_repo("tester/tiny-clip")
        api.upload_folder(repo_id="tester/tiny-clip", folder_path=tmp_path / "clip")
        given = ["convert", "clip_probe", "--output", tmp_path / "out", "--source"]
        result = shell(*given, "tester/tiny-clip")
        assert result.exit_code == 0, result.stderr
        missing = shell(*given[:-2], tmp_path / "other", "--source", "tester/absent")
        assert missing.exit_code == 1 and "tester/absent" in missing.stderr
    loaded = AutoModelForDeepfakeDetection.from_pretrained(tmp_path / "out").state_dict()
    name = "encoder.layers.1.mlp.fc1.weight"
    assert torch.equal(loaded[f"vision_tower.{name}"], tower.state_dict()[f"vision_model.{name}"])
    refused = shell("convert", "m2f2_det", "--source", "tester/tiny-clip", "--output", tmp_path / "third")
    assert refused.exit_code == 2 and "tester/tiny-clip" in refused.stderr


def test_where_official_weights_are_is_said(shell, tmp_path) -> None:
    text = " ".join(shell("convert", "--help").stdout.split())
    table = " ".join(shell("info", "--format", "table").stdout.split())
    for family in FAMILIES.values():
        for item in family.official:
            assert item["where"].startswith("https://") and item["terms"]
            assert item["id"] in text and item["where"] in text
            assert item["id"] in table
    missing = shell("convert", "fakevlm", "--source", tmp_path / "absent", "--output", tmp_path / "out")
    assert missing.exit_code == 2 and "https://huggingface.co/lingcco/fakeVLM" in missing.stderr
