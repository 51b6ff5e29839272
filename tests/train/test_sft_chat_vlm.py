"""Chat models learn a verdict sentence, judge their own pictures rightly, and go on where a run was killed."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from deepfake_detectors.conversion.merge import merge
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.modeling.image_loading import load_image
from deepfake_detectors.train.train_sft import build_trainer, train_sft
from support.ddvqa_tree import stems, write_tree
from support.sft_runs import BASES, ON_THIS_MACHINE, command, losses, offline, parsed, recipe, write_recipe

STEPS = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return BASES["chat_vlm"](tmp_path_factory.mktemp("chat") / "base")


def fields(base, data, output, **changes):
    settings = recipe("chat_vlm_lora", **ON_THIS_MACHINE)
    settings |= {"model_name_or_path": str(base), "data_dir": str(data), "output_dir": str(output)}
    settings |= {"dataset": "ddvqa", "dataset_configs": ["c40_judge"], "conversation": "verdict", "dtype": "float32"}
    settings |= {"validation_fraction": 0.3, "learning_rate": 0.01, "max_steps": STEPS, "eval_strategy": "steps"}
    return settings | {"eval_steps": 5, "save_strategy": "steps", "save_steps": 1, "save_total_limit": None, **changes}


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_weights(base, data, tmp_path):
    whole = train_sft(*parsed(tmp_path / "whole", fields(base, data, tmp_path / "whole" / "out")))
    out = tmp_path / "killed" / "out"
    options = write_recipe(tmp_path / "killed" / "recipe.yaml", fields(base, data, out))
    with subprocess.Popen(command("--cpu") + options, env=offline(), start_new_session=True) as process:
        while not (out / "checkpoint-3" / "trainer_state.json").is_file():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (out / "adapter_model.safetensors").exists(), "the run was over before it could be killed"
    resumed = train_sft(*parsed(tmp_path / "killed", fields(base, data, out, resume_from_checkpoint="true")))
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert losses(whole, STEPS) == losses(resumed, STEPS)

    merged = open_checkpoint(merge(base, [whole], tmp_path / "merged"))
    model = merged.load_model()
    assert model.config.trained
    assert model.config.answers == {"real": ["This is a real image"], "fake": ["This is a fake image"]}


def written_pictures(root):
    """Dark real ones, bright fakes, each with noise of its own."""
    generator = np.random.default_rng(0)
    for name, low in (("real", 0), ("fake", 120)):
        (root / "train" / name).mkdir(parents=True)
        for index in range(12):
            pixels = generator.integers(low, low + 120, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "train" / name / f"{index}.png")
    return root


@pytest.mark.slow
def test_whole_training_learns_its_own_pictures_and_resumes(base, tmp_path):
    """Not LoRA: a random model has to learn to see first."""
    options = {"use_peft": False, "lora_target_modules": None, "learning_rate": 3e-3, "per_device_train_batch_size": 8}
    options |= {"dataset": "image_folder", "dataset_config": "real_fake", "dataset_configs": None}
    options |= {"max_steps": 80, "save_steps": 40, "eval_steps": 40, "lr_scheduler_type": "constant"}
    settings = fields(base, written_pictures(tmp_path / "data"), tmp_path / "out", **options)
    out = train_sft(*parsed(tmp_path, settings))
    found = losses(out, 80)
    assert sum(found[-5:]) < 0.5 * sum(found[:5])
    checkpoint = open_checkpoint(out)
    assert (checkpoint.family.name, checkpoint.stock) == ("chat_vlm", True)
    model, processor = checkpoint.load_model(), checkpoint.load_processor()
    assert model.config.trained
    trainer, _ = build_trainer(
        *parsed(tmp_path / "again", {**settings, "output_dir": str(tmp_path / "again" / "out")})
    )
    rows = trainer.train_dataset
    batch = processor(images=[load_image(cell) for cell in rows["image"]])
    right = (model.detect(**batch).logits.argmax(-1) == torch.tensor(rows["label"][:])).float().mean().item()
    assert right > 0.9
    again = train_sft(*parsed(tmp_path, {**settings, "resume_from_checkpoint": str(out / "checkpoint-40")}))
    assert losses(again, 80) == found


def test_vision_tower_of_any_architecture_can_rest(base, data, tmp_path):
    options = {"use_peft": False, "lora_target_modules": None, "train_vision": False}
    trainer, _ = build_trainer(*parsed(tmp_path, fields(base, data, tmp_path / "out", **options)))
    moving = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert moving
    assert not any(name.startswith(trainer.model.vision_tower) for name in moving)
    assert any("language_model" in name for name in moving)
