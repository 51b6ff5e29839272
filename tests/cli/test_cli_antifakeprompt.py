"""AntifakePrompt as a user types it: convert, then judge and explain real files."""

import json
from pathlib import Path

import pytest

from support.antifakeprompt_folders import golden_fields, read_config
from support.golden_files import golden_folder
from support.real_data import needs_real_data, real_data

FOLDER = golden_folder("antifakeprompt")
SUFFIXES = (".jpg", ".jpeg", ".png")
SOURCES = ["model_lavis.safetensors", "released_style_checkpoint.pth", "llm_tokenizer", "qformer_tokenizer"]


@pytest.fixture
def converted(shell, tmp_path: Path) -> Path:
    sources = [part for name in SOURCES for part in ("--source", FOLDER / name)]
    fields = json.dumps(golden_fields(read_config(FOLDER)))
    result = shell("convert", "antifakeprompt", *sources, "--output", tmp_path / "out", "--config", fields)
    assert result.exit_code == 0, result.stderr
    return tmp_path / "out"


def explained(shell, model: Path, *files: Path) -> list:
    result = shell("detect", *files, "--model", model, "--explain", "--max-new-tokens", 4, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_convert_then_detect_and_explain(shell, converted: Path, photos: Path) -> None:
    rows = explained(shell, converted, photos)
    assert len(rows) == 3 and all(isinstance(row["explanation"], str) for row in rows)
    assert shell("info", "--model", converted).exit_code == 0


@needs_real_data
def test_real_pictures(shell, converted: Path) -> None:
    files = sorted(path for path in real_data("faces_stylegan2").rglob("*") if path.suffix.lower() in SUFFIXES)[:6]
    assert files
    rows = explained(shell, converted, *files)
    assert len(rows) == len(files)
    assert len({row["fake_probability"] for row in rows}) > 1


def test_a_missing_word_is_one_line(shell, tmp_path: Path) -> None:
    result = shell("convert", "antifakeprompt", "--source", FOLDER / "llm_tokenizer", "--output", tmp_path / "out")
    assert (
        result.exit_code == 1 and result.stderr.startswith("Error: ") and "No AntifakePrompt weights" in result.stderr
    )
