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
from safetensors.torch import load_file

from deepfake_detectors.train.train_classifier import train_classifier
from support.classifier_runs import parsed, small_fields
from support.ddvqa_tree import stems, write_tree
from support.sft_runs import losses, offline, write_recipe

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


@pytest.mark.slow
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
                with pytest.raises(ValueError, match="checkpoint-"):
                    train_classifier(*parsed(tmp_path / "run", fields(name, data, refused, **changes)))
                assert not refused.exists()


def changed_fields(kind, data, output, **changes):
    """Two recipes of one class and family, whose weights differ."""
    if kind == "variant":  # cosine
        return fields("m2f2_det_stage1_cosine", data, output, **changes)
    if kind == "width":
        settings = fields("m2f2_det_stage1_bridge", data, output, **changes)
        settings["model_config"]["hidden_size"] *= 2
        return settings
    settings = fields("lvlm_dfd_stage1", data, output, **changes)
    if kind == "rank":
        settings["lora"]["r"] *= 2
    else:  # "targets"
        settings["lora"]["target_modules"] = r".*imagebind\.vision_model\.layers\.\d+\.mlp\.fc[12]"
    return settings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "variant",
            "m2f2_det_stage1_bridge",
            r"variant 'bridge' instead of 'cosine'.* only in this run: .*detector\.",
        ),
        ("width", "m2f2_det_stage1_bridge", r"hidden_size \d+ instead of \d+.*.*: detector\."),
        ("rank", "lvlm_dfd_stage1", r"\S+lora_A\.weight \(\d+, \d+\) instead of \(\d+, \d+\)"),
        ("targets", "lvlm_dfd_stage1", r"only in the checkpoint: \S+text_model\S+lora_A"),
    ],
)
def test_resume_folder_of_other_weights(kind, name, message, data, tmp_path):
    """The family and the class fit, the weights do not: refused before anything is written."""
    done = train_classifier(*parsed(tmp_path, fields(name, data, tmp_path / "done", max_steps=1, eval_steps=1)))
    refused = tmp_path / "refused"
    settings = changed_fields(kind, data, refused, resume_from_checkpoint=str(done / "checkpoint-1"))
    with pytest.raises(ValueError, match=rf"checkpoint-1 .*{message}"):
        train_classifier(*parsed(tmp_path / "run", settings))
    assert not refused.exists()


def test_resume_folder_with_a_damaged_file(data, tmp_path):
    name = "m2f2_det_stage1_bridge"
    done = train_classifier(*parsed(tmp_path, fields(name, data, tmp_path / "done", max_steps=1, eval_steps=1)))
    weights = done / "checkpoint-1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    changes = {"resume_from_checkpoint": str(done / "checkpoint-1")}
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        train_classifier(*parsed(tmp_path / "run", fields(name, data, tmp_path / "refused", **changes)))
    assert not (tmp_path / "refused").exists()
