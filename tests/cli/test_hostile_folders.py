"""No command runs the code of a model folder, whatever is answered; damaged folders end in one line."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoConfig
from typer.testing import CliRunner

from deepfake_detectors_cli import app
from support.hostile_folders import BRINGING_CODE, HOSTILE_CONFIGS, adapter_on, with_code
from support.pictures import random_pictures
from support.tiny_models import tiny_fakevlm

COMMANDS = {
    "detect": lambda model, place: ("detect", place / "x.png", "--model", model),
    "explain": lambda model, place: ("detect", place / "x.png", "--model", model, "--explain"),
    "examine": lambda model, place: ("examine", place / "x.png", "--model", model),
    "info": lambda model, place: ("info", "--model", model),
    "evaluate": lambda model, place: (
        *("evaluate", "--model", model, "--real-dir", place / "real", "--fake-dir", place / "fake"),
        *("--output", place / "report"),
    ),
    "convert": lambda model, place: ("convert", "fakevlm", "--source", model, "--output", place / "converted"),
    "merge": lambda model, place: ("merge", "--model", model, "--delta", place / "delta", "--output", place / "m"),
    "publish": lambda model, place: (
        *("publish", "--model", model, "--repo", "someone/something", "--without-results"),
        *("--dry-run", place / "dry"),
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("inputs")
    for name, picture in zip(("x.png", "real/a.png", "fake/b.png"), random_pictures(3), strict=True):
        (place / name).parent.mkdir(exist_ok=True)
        picture.save(place / name)
    adapter_on(place, place / "delta")
    return place


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return tiny_fakevlm(tmp_path_factory.mktemp("fakevlm") / "model")


def run(arguments, answers="y\n" * 20):
    """The result of a command whose user says yes to everything; it may fail, but only with one line."""
    started = time.monotonic()
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=answers)
    assert isinstance(result.exception, (SystemExit, type(None))), repr(result.exception)
    assert "Traceback" not in result.output + result.stderr
    assert "Unexpected" not in result.stderr, result.stderr
    assert time.monotonic() - started < 30
    return result


@pytest.mark.parametrize("kind", BRINGING_CODE)
def test_no_command_runs_the_code_of_a_folder(kind, language_model, place, tmp_path):
    folder, marker = with_code(language_model, tmp_path / "model", kind)
    adapter = adapter_on(folder, tmp_path / "adapter")
    for name, command in COMMANDS.items():
        shutil.rmtree(place / "converted", ignore_errors=True)
        for source in (folder, adapter) if name != "merge" else (folder,):
            run(command(source, place))
            assert not marker.exists(), (name, source)
    for leftover in ("m", "dry", "report", "converted"):
        shutil.rmtree(place / leftover, ignore_errors=True)


def test_the_code_of_these_folders_would_run(language_model, tmp_path):
    folder, marker = with_code(language_model, tmp_path / "model", "unknown model_type")
    AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert marker.exists()


@pytest.mark.slow
def test_a_process_that_is_answered_yes_runs_nothing(language_model, tmp_path):
    folder, marker = with_code(language_model, tmp_path / "model", "unknown model_type")
    command = [sys.executable, "-m", "deepfake_detectors_cli", "info", "--model", str(folder)]
    ended = subprocess.run(command, input="y\n" * 20, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode in (1, 2)
    assert "Traceback" not in ended.stderr
    assert not marker.exists()


@pytest.mark.parametrize("kind", HOSTILE_CONFIGS)
def test_a_damaged_config_is_one_line(kind, model, place, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    config = folder / "config.json"
    config.write_bytes(HOSTILE_CONFIGS[kind](config.read_bytes()))
    for name in ("info", "detect"):
        result = run(COMMANDS[name](folder, place))
        if result.exit_code == 0:
            assert kind in HARMLESS
        else:
            assert result.exit_code in (1, 2)
            assert len(result.stderr.splitlines()[-1]) < 4000
            assert result.stderr.splitlines()[-1].startswith("Error: ")


# What libraries pass over because nothing depends on it.
HARMLESS = {"auto_map of a word", "architectures of a number", "quantization of a word", "labels of a list"}

FILES = ("processor_config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "kind", ["empty", "not JSON", "not UTF-8", "a list", "a number", "deep", "twice", "many digits"]
)
def test_the_other_files_of_a_folder(kind, name, language_model, place, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(language_model, folder)
    file = folder / name
    content = file.read_bytes() if file.is_file() else b'{"a": 1}'
    file.write_bytes(HOSTILE_CONFIGS[kind](content))
    result = run(COMMANDS["detect"](folder, place))
    assert result.exit_code in (1, 2) or (kind, name) == ("twice", "tokenizer.json")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("processor_config.json", {"image_processor": 7}),
        ("processor_config.json", {"image_processor": {"size": {"shortest_edge": 10**9}}}),
        ("processor_config.json", {"image_processor": {"crop_size": {"height": 10**9, "width": 10**9}}}),
        ("tokenizer_config.json", {"tokenizer_class": 7}),
        ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}),
        ("tokenizer_config.json", {"tokenizer_file": "../../x.json"}),
        ("adapter_config.json", {"base_model_name_or_path": 7}),
        ("model.safetensors.index.json", {"weight_map": {"x": "/etc/passwd"}}),
        ("model.safetensors.index.json", {"weight_map": {"x": "../other/model.safetensors"}}),
        ("model.safetensors.index.json", {"weight_map": ["x"]}),
        ("model.safetensors.index.json", {"weight_map": {"x": 7}}),
    ],
)
def test_fields_of_the_other_files(name, fields, language_model, place, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(language_model, folder)
    content = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    merged = {**content, **fields}
    if isinstance(fields.get("image_processor"), dict):
        merged["image_processor"] = {**content["image_processor"], **fields["image_processor"]}
    (folder / name).write_text(json.dumps(merged))
    result = run(COMMANDS["detect"](folder, place))
    assert result.exit_code in (1, 2), result.output


def test_a_pipe_in_a_folder_is_not_waited_for(model, place, tmp_path):
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    result = run(COMMANDS["detect"](folder, place))
    assert result.exit_code in (1, 2)
    assert "regular file" in result.stderr
