"""No training runs the code that its base brings, whatever is answered on standard input."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deepfake_detectors.train.train_classifier import train_classifier
from deepfake_detectors.train.train_sft import train_sft
from support import classifier_runs, sft_runs
from support.ddvqa_tree import stems, write_tree
from support.hostile_folders import BRINGING_CODE, with_code
from support.tiny_models import tiny_antifakeprompt, tiny_fakevlm, tiny_m2f2_det


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        "sft": tiny_fakevlm(folder / "sft", prompt_style="hf_chat"),
        "classifier": tiny_m2f2_det(folder / "classifier"),
        "words": tiny_antifakeprompt(folder / "words"),
    }


def sft_fields(base: Path, data: Path, output: Path) -> dict[str, Any]:
    fields = sft_runs.recipe("fakevlm_full", **sft_runs.ON_THIS_MACHINE)
    fields |= {"model_name_or_path": str(base), "data_dir": str(data), "output_dir": str(output), "max_steps": 1}
    return fields | {"dataset": "ddvqa", "dataset_configs": None, "dataset_config": "c40_judge"}


def train(kind: str, base: Path, data: Path, folder: Path) -> None:
    if kind == "sft":
        train_sft(*sft_runs.parsed(folder, sft_fields(base, data, folder / "out")))
        return
    recipe = "antifakeprompt" if kind == "words" else "m2f2_det_stage1_cosine"
    changes = {"model_name_or_path": str(base), "model_config": None, "image_processor": None, "max_steps": 1}
    changes |= {"model_type": None, "lr_scheduler_type": "constant"}
    fields = classifier_runs.small_fields(recipe, data, folder / "out", **changes)
    train_classifier(*classifier_runs.parsed(folder, fields))


@pytest.mark.parametrize("kind", ["sft", "classifier", "words"])
def test_a_harmless_base_gets_as_far_as_the_data(kind: str, bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no data"):
        train(kind, bases[kind], tmp_path / "no data", tmp_path)


@pytest.mark.parametrize("what", BRINGING_CODE)
@pytest.mark.parametrize("kind", ["sft", "classifier", "words"])
def test_no_training_runs_the_code_of_its_base(
    kind: str, what: str, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, marker = with_code(bases[kind], tmp_path / "base", what)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    # There are no data, so that a training whose base does load ends there.
    with pytest.raises((ValueError, OSError)):
        train(kind, base, tmp_path / "no data", tmp_path)
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_training_process_that_is_answered_yes_runs_nothing(bases: dict[str, Path], tmp_path: Path) -> None:
    data = write_tree(tmp_path / "ddvqa", stems(range(8)), stems(range(20, 22)))
    base, marker = with_code(bases["sft"], tmp_path / "base", "known model_type")
    options = sft_runs.write_recipe(tmp_path / "recipe.yaml", sft_fields(base, data, tmp_path / "out"))
    command = [sys.executable, "-m", "deepfake_detectors.train.train_sft", *options]
    given = {"input": "y\n" * 20, "capture_output": True, "text": True, "env": sft_runs.offline()}
    ended = subprocess.run(command, **given, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not marker.exists()
