"""A kill while a checkpoint is saved, before each single move of a file: the old state or the new one, never a mix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from deepfake_detectors.modeling.saving import saved_whole
from support.tiny_models import m2f2_det, tiny_m2f2_det


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def save_and_die(number, model, folder, **options):
    """Save in a process that is gone when it is about to move its `number`th file; return whether it was."""
    child = os.fork()
    if child == 0:
        replace, count = Path.replace, 0

        def dying(self, target):
            nonlocal count
            count += 1
            if count == number:
                os._exit(9)
            return replace(self, target)

        Path.replace = dying
        try:
            model.save_pretrained(folder, **options)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.fixture(scope="module")
def models():
    return [m2f2_det(seed=seed, operating_points={"seed": seed / 10}) for seed in (1, 2)]


def test_every_kill_leaves_one_of_the_two_states(models, tmp_path):
    old, new = models
    states, number = [], 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        old.save_pretrained(folder)
        # Another number of weight files, so that those of the old state must go.
        died = save_and_die(number, new, folder, max_shard_size="40KB")
        loaded = AutoModel.from_pretrained(folder)
        seed = loaded.config.operating_points["seed"]
        expected = {0.1: old, 0.2: new}[seed].state_dict()
        assert all(torch.equal(weight, expected[name]) for name, weight in loaded.state_dict().items())
        states.append(seed)
        new.save_pretrained(folder)
        assert not list(folder.glob(".*")) and len(list(folder.glob("*.safetensors"))) == 1
        if not died:
            break
    assert states == sorted(states) and set(states) == {0.1, 0.2}, "else this tests nothing"


def test_what_is_saved_beside_stays(models, tmp_path):
    folder = tiny_m2f2_det(tmp_path / "model")
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    models[0].save_pretrained(folder)
    after = contents(folder)
    assert after.keys() == before.keys() and after["notes.txt"] == b"mine"
    assert AutoProcessor.from_pretrained(folder).save_pretrained(folder) == [str(folder / "processor_config.json")]


def test_a_failure_changes_nothing(models, tmp_path, monkeypatch):
    models[0].save_pretrained(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt), saved_whole(tmp_path) as folder:
        models[1].save_pretrained(folder)
        raise KeyboardInterrupt
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_another_living_process_keeps_its_half_written_files(tmp_path: Path) -> None:
    """Two ranks of one training save into one checkpoint folder; the second must not sweep the first one's files."""
    from deepfake_detectors.modeling.saving import saved_whole

    program = (
        "import sys; from deepfake_detectors.modeling.saving import saved_whole\n"
        "with saved_whole(sys.argv[1]) as stage:\n"
        "    print(stage, flush=True); sys.stdin.readline(); open(stage + '/config.json', 'w').write('{}')"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None and other.stdout is not None
    stage = Path(other.stdout.readline().strip())
    with saved_whole(tmp_path) as own:
        assert stage.is_dir()
        (Path(own) / "other.json").write_text("{}")
    assert stage.is_dir()
    other.communicate("go\n")
    assert other.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "other.json"]
    killed = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    left = Path(killed.stdout.readline().strip())
    killed.kill()
    killed.wait()
    assert left.is_dir()
    with saved_whole(tmp_path):
        assert not left.exists()
