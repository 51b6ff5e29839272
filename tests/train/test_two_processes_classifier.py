"""Two processes on CPU are really two, and train a detector as one process with the same global batch does."""

import json
import subprocess

import pytest
import torch
from classifier_runs import parsed, small_fields
from ddvqa_tree import stems, write_tree
from safetensors.torch import load_file
from sft_runs import command, losses, offline, recipe, write_recipe
from tiny_models import ENCODERS

from deepfake_detectors.train.train_classifier import train_classifier

STEPS, GLOBAL_BATCH, RATE = 5, 8, 0.01
SCRIPT = "deepfake_detectors.train.train_classifier"


def test_two_processes_equal_one(tmp_path):
    # More pictures than the steps take: the last batch of an epoch would be filled up on two processes.
    data = write_tree(tmp_path / "ddvqa", stems(range(24)), stems(range(30, 32)), size=56)

    def fields(output, batch):
        changes = {"max_steps": STEPS, "learning_rate": RATE, "per_device_train_batch_size": batch}
        changes |= {"eval_strategy": "steps", "eval_steps": STEPS, "save_strategy": "steps", "save_steps": STEPS}
        # Batch norms learn from each process' own half, and noise is drawn by each: without them there is one answer.
        model = recipe("m2f2_det_stage1_cosine_mini")["model_config"]
        changes["model_config"] = {**model, "encoder_config": ENCODERS["cosine"]}
        changes["freeze"] = ["vision_tower", "detector.prompt_encoder.text_tower", "detector.encoder"]
        return small_fields("m2f2_det_stage1_cosine", data, output, **changes)

    alone = train_classifier(*parsed(tmp_path / "one", fields(tmp_path / "one" / "out", GLOBAL_BATCH)))
    out = tmp_path / "two" / "out"
    options = write_recipe(tmp_path / "two" / "recipe.yaml", fields(out, GLOBAL_BATCH // 2))
    # `--cpu --num_processes 2` would silently run one.
    launcher = command("--multi_gpu", "--num_processes", "2", "--main_process_port", "0", module=SCRIPT)
    done = subprocess.run(launcher + options, env=offline(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    assert (out / f"checkpoint-{STEPS}" / "rng_state_1.pth").is_file()  # written by the second process
    first, second = losses(alone, STEPS), losses(out, STEPS)
    assert len(second) == STEPS
    assert max(first) - min(first) > 0.01
    assert second == pytest.approx(first, rel=1e-5)
    one, two = (json.loads((folder / "validation.json").read_text())["metrics"] for folder in (alone, out))
    assert one["num_real"] + one["num_fake"] == two["num_real"] + two["num_fake"]  # no picture twice, none left out
    assert two["auc"] == pytest.approx(one["auc"])
    weights = [load_file(folder / "model.safetensors") for folder in (alone, out)]
    moved = 0
    for name, tensor in weights[0].items():
        if tensor.is_floating_point():
            # Adam blows the rounding of a gradient near zero up to a share of the step.
            assert weights[1][name].sub(tensor).abs().max() < 0.1 * RATE, name
            moved += int(not torch.equal(weights[1][name], tensor))
    assert moved < len(weights[0]) / 2  # what is frozen is the same to the last bit
