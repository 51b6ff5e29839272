"""A classifier run that is killed and resumed ends where the uninterrupted one does, bit by bit, in every form of
checkpoint: a whole model (plateau schedule), LoRA with heads, learned words (dropout)."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from classifier_runs import parsed, small_fields
from ddvqa_tree import stems, write_tree
from safetensors.torch import load_file
from sft_runs import losses, offline, write_recipe

from deepfake_detectors.train.train_classifier import train_classifier

STEPS = 12
RUNS = {
    "m2f2_det_stage1_bridge": "model.safetensors",
    "lvlm_dfd_stage1": "model.safetensors",
    "antifakeprompt": "soft_words.safetensors",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)), size=56)


def fields(name, data, output, **changes):
    settings = {"max_steps": STEPS, "learning_rate": 0.01, "save_strategy": "steps", "save_steps": 1}
    settings |= {"eval_strategy": "steps", "eval_steps": 3, "save_total_limit": None, "mirror": True}
    if name.startswith("m2f2_det"):
        settings["lr_scheduler_kwargs"] = {"mode": "min", "factor": 0.5, "patience": 0, "threshold": 0.9}
    return small_fields(name, data, output, **{**settings, **changes})


@pytest.mark.parametrize("name", RUNS)
def test_killed_run_resumes_to_the_same_weights(name, data, tmp_path):
    out = tmp_path / "out"
    whole = train_classifier(*parsed(tmp_path, fields(name, data, out)))
    uninterrupted, expected = load_file(whole / RUNS[name]), losses(whole, STEPS)
    shutil.rmtree(whole)

    step = random.randrange(2, STEPS - 2)
    options = write_recipe(tmp_path / "killed.yaml", fields(name, data, out))
    command = [sys.executable, "-m", "deepfake_detectors.train.train_classifier", *options]
    with subprocess.Popen(command, env=offline(), start_new_session=True) as process:
        while not (out / f"checkpoint-{step}" / "trainer_state.json").is_file():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (out / f"checkpoint-{STEPS}").exists(), "the run was over before it could be killed"
    assert not (out / RUNS[name]).exists()

    resumed = train_classifier(*parsed(tmp_path, fields(name, data, out, resume_from_checkpoint="true")))
    found = load_file(resumed / RUNS[name])
    assert found.keys() == uninterrupted.keys()
    assert [key for key in found if not torch.equal(found[key], uninterrupted[key])] == []
    assert losses(resumed, STEPS) == expected


def test_resume_folder_of_another_family_or_kind(data, tmp_path):
    """Every pair of the three forms of checkpoint is refused before anything is written."""
    checkpoints = {}
    for name in RUNS:
        out = tmp_path / name
        train_classifier(*parsed(tmp_path / f"{name}_run", fields(name, data, out, max_steps=1, eval_steps=1)))
        checkpoints[name] = out / "checkpoint-1"
    for name in RUNS:
        for other, folder in checkpoints.items():
            if other != name:
                refused = tmp_path / f"{name}_from_{other}"
                changes = {"resume_from_checkpoint": str(folder)}
                with pytest.raises(ValueError, match=r"is a checkpoint of .*, but this run trains .*Resume with"):
                    train_classifier(*parsed(tmp_path / "run", fields(name, data, refused, **changes)))
                assert not refused.exists()
