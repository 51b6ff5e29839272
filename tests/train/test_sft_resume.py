"""A run that is killed and resumed ends where the uninterrupted one does, bit by bit."""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepfake_detectors.train.train_sft import train_sft
from support.ddvqa_tree import stems, write_tree
from support.sft_runs import BASES, ON_THIS_MACHINE, command, losses, offline, parsed, recipe, write_recipe

STEPS = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)))


def fields(base, data, output, name="m2f2_det_stage3", **changes):
    """LoRA with dropout: also the random generators must go on where they stopped."""
    settings = recipe(name, **ON_THIS_MACHINE)
    settings |= {"model_name_or_path": str(base), "data_dir": str(data), "output_dir": str(output)}
    settings |= {"dataset_configs": ["c40_judge"], "validation_fraction": 0.3, "learning_rate": 0.01}
    settings |= {"max_steps": STEPS, "eval_strategy": "steps", "eval_steps": 3}
    return settings | {"save_strategy": "steps", "save_steps": 1, "save_total_limit": None, **changes}


def differing(first, second, file="adapter_model.safetensors"):
    one, other = load_file(first / file), load_file(second / file)
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_weights(data, tmp_path):
    base = BASES["m2f2_det"](tmp_path / "base")
    whole = train_sft(*parsed(tmp_path / "whole", fields(base, data, tmp_path / "whole" / "out")))

    out = tmp_path / "killed" / "out"
    step = random.randrange(2, STEPS // 2)
    options = write_recipe(tmp_path / "killed" / "recipe.yaml", fields(base, data, out))
    with subprocess.Popen(command("--cpu") + options, env=offline(), start_new_session=True) as process:
        while not (out / f"checkpoint-{step}" / "trainer_state.json").is_file():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (out / f"checkpoint-{STEPS}").exists(), "the run was over before it could be killed"
    assert not (out / "adapter_model.safetensors").exists()

    resumed = train_sft(*parsed(tmp_path / "killed", fields(base, data, out, resume_from_checkpoint="true")))
    assert differing(whole, resumed) == []
    assert losses(whole, STEPS) == losses(resumed, STEPS)


def fakevlm_fields(base, data, output, **changes):
    """A whole model, whose names on disk are not those in memory."""
    options = {"dataset": "ddvqa", "conversation": "verdict", "max_steps": 4, "save_steps": 2, "eval_steps": 2}
    return fields(base, data, output, name="fakevlm_full", **options, **changes)


@pytest.mark.slow
def test_checkpoint_that_was_cut_off_is_passed_over(data, tmp_path):
    base = BASES["fakevlm"](tmp_path / "base")
    whole = train_sft(*parsed(tmp_path, fakevlm_fields(base, data, tmp_path / "whole")))
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    last = again / "checkpoint-4"
    (last / "trainer_state.json").write_text((last / "trainer_state.json").read_text()[:100])
    (last / "model.safetensors").unlink()
    (again / "model.safetensors").unlink()
    resumed = train_sft(*parsed(tmp_path, fakevlm_fields(base, data, again, resume_from_checkpoint="true")))
    assert differing(whole, resumed, "model.safetensors") == []
    assert losses(whole, 4) == losses(resumed, 4)


@pytest.mark.slow
def test_best_checkpoint_is_what_is_saved(data, tmp_path):
    base = BASES["fakevlm"](tmp_path / "base")
    # Called best: the highest loss, which is the first.
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    out = train_sft(*parsed(tmp_path, fakevlm_fields(base, data, tmp_path / "out", **best)))
    assert differing(out / "checkpoint-2", out, "model.safetensors") == []
    assert differing(out / "checkpoint-4", out, "model.safetensors") != []


def test_resume_folder_of_another_rank_or_width(data, tmp_path):
    """An adapter that does not fit the base is refused before anything is written; one of another rank, before PEFT
    loads it."""
    base = BASES["m2f2_det"](tmp_path / "base")
    done = train_sft(*parsed(tmp_path, fields(base, data, tmp_path / "done", max_steps=1, eval_strategy="no")))
    resume = {"max_steps": 2, "resume_from_checkpoint": str(done / "checkpoint-1"), "eval_strategy": "no"}
    rank = fields(base, data, tmp_path / "rank", **resume)
    rank["lora_r"] *= 2
    with pytest.raises(ValueError, match=r"lora_A\S+ \(\d+, \d+\)"):
        train_sft(*parsed(tmp_path, rank))

    adapter = done / "checkpoint-1" / "adapter_model.safetensors"
    wider = {
        name: torch.cat([weight, weight], -1) if "lora_A" in name else weight
        for name, weight in load_file(adapter).items()
    }
    save_file(wider, adapter, metadata={"format": "pt"})
    refused = tmp_path / "refused"
    with pytest.raises(ValueError, match=r"lora_A\S+ \(\d+, \d+\)"):
        train_sft(*parsed(tmp_path, fields(base, data, refused, **resume)))
    assert not refused.exists()
