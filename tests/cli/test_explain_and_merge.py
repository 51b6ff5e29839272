"""`detect --explain` and `merge` as a user types them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepfake_detectors import pipeline
from support.tiny_models import tiny_m2f2_det_llm


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_m2f2_det_llm(tmp_path_factory.mktemp("explainer"))


def test_explanations_are_written(shell, explainer: Path, photos: Path) -> None:
    arguments = ["detect", photos, "--model", explainer, "--explain", "--max-new-tokens", 6, "--format"]
    rows = [json.loads(line) for line in shell(*arguments, "json").stdout.splitlines()]
    assert len(rows) == 3 and all(isinstance(row["explanation"], str) and row["explanation"] for row in rows)
    table = shell(*arguments, "table").stdout
    assert "explanation" in table.splitlines()[0]


def test_a_question_implies_an_explanation(shell, explainer: Path, photos: Path) -> None:
    result = shell("detect", photos / "0.png", "-m", explainer, "--question", "Nose?", "--max-new-tokens", 3)
    assert json.loads(result.stdout)["explanation"] is not None


def test_a_question_follows_earlier_turns(shell, explainer: Path, photos: Path, tmp_path: Path) -> None:
    turns = [["Is it real?", "The image is fake."], ["Nose?", "It lacks detail."]]
    file = tmp_path / "turns.json"
    file.write_text(json.dumps(turns))
    arguments = ["detect", photos / "0.png", "-m", explainer, "--question", "Eyes?", "--max-new-tokens", 6]
    found = json.loads(shell(*arguments, "--history", file).stdout)["explanation"]
    options = {"explain": True, "question": "Eyes?", "generate_kwargs": {"max_new_tokens": 6}}
    detector = pipeline(model=str(explainer))
    picture = str(photos / "0.png")
    assert found == detector(picture, history=[tuple(turn) for turn in turns], **options)["explanation"]
    assert found != detector(picture, **options)["explanation"]
    for content in ('{"a": 1}', '[["one"]]', '[["a", 1]]', "["):
        file.write_text(content)
        result = shell(*arguments, "--history", file)
        assert result.exit_code == 2 and "turns.json" in result.stderr
    assert shell("detect", photos, "-m", explainer, "--history", file).exit_code == 2


def test_a_verdict_only_detector_says_who_can(shell, model: str, photos: Path) -> None:
    result = shell("detect", photos, "--model", model, "--explain")
    assert result.exit_code == 2 and "M2F2DetForConditionalGeneration" in result.stderr
    result = shell("detect", photos, "--model", model, "--max-new-tokens", 3)
    assert result.exit_code == 2 and "--explain" in result.stderr


def test_merge_replaces_what_the_delta_holds(shell, explainer: Path, tmp_path: Path) -> None:
    name = "model.deepfake_projector.linear_1.bias"
    save_file({name: torch.full((32,), 7.0)}, tmp_path / "delta.safetensors")
    result = shell(
        "merge", "--model", explainer, "--delta", tmp_path / "delta.safetensors", "--output", tmp_path / "m"
    )
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    before, after = (load_file(folder / "model.safetensors") for folder in (explainer, tmp_path / "m"))
    assert [key for key in before if not torch.equal(before[key], after[key])] == [name]
    assert shell("info", "--model", tmp_path / "m").exit_code == 0


def test_a_bad_delta_is_one_line(shell, explainer: Path, tmp_path: Path) -> None:
    save_file({"stranger": torch.zeros(1)}, tmp_path / "delta.safetensors")
    result = shell("merge", "-m", explainer, "--delta", tmp_path / "delta.safetensors", "--output", tmp_path / "m")
    assert result.exit_code == 1 and result.stderr.startswith("Error: ") and "stranger" in result.stderr
    assert not (tmp_path / "m").exists()
