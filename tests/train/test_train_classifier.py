"""Classifier training through its real command line, on a small generated tree."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel, pipeline

from deepfake_detectors.train import train_classifier as entry
from support.ddvqa_tree import stems, write_tree

RECIPES = Path(entry.__file__).parent / "recipes"
RECIPE = {
    "model_type": "m2f2_det",
    "model_config": {
        "variant": "cosine",
        "hidden_size": 16,
        "mask_loss_weight": 0.5,
        "encoder_config": {"type": "residual_energy", "image_size": 32, "grid_size": 8, "widths": [8, 8]},
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
        },
        "prompt_text_config": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 8,
            "max_position_embeddings": 8,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        },
    },
    "image_processor": {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    "dataset": "ddvqa",
    "dataset_options": {"on_label_conflict": "drop"},
    "validation_fraction": 0.3,
    "balanced_sampling": True,
    "mirror": True,
    "shift_cell": 4,
    "twin_masks": True,
    "seed": 0,
    "max_steps": 6,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.01,
    "learning_rates": {"vision_tower": 0.001},
    "label_smoothing_factor": 0.05,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "auc",
    "greater_is_better": True,
    "remove_unused_columns": False,
    "label_names": ["labels"],
    "report_to": "none",
    "use_cpu": True,
    "cpu_threads": 1,  # tiny tensors: more threads only wait for each other
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(12)), stems(range(20, 22)))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Train in this process with changes to the recipe; returns the output folder."""
    monkeypatch.delenv("DEEPFAKE_DATA", raising=False)
    threads = torch.get_num_threads()

    def train(*options, output="out", **changes):
        recipe = tmp_path / f"{output}.yaml"
        recipe.write_text(yaml.safe_dump({**RECIPE, **changes}))
        arguments = ["--config", str(recipe), "--output_dir", str(tmp_path / output), *map(str, options)]
        return entry.train_classifier(*entry.parse_recipe(arguments))

    yield train
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_command_line_trains_a_loadable_folder(data, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "max_steps": 40, "eval_steps": 20, "save_steps": 20}))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "-m"]
    command += ["deepfake_detectors.train.train_classifier", "--config", str(recipe)]
    command += ["--data_dir", str(data), "--output_dir", str(tmp_path / "out"), "--logging_steps", "5"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]

    out = tmp_path / "out"
    assert {"config.json", "model.safetensors", "processor_config.json", "validation.json"} <= {
        path.name for path in out.iterdir()
    }
    state = json.loads((out / "checkpoint-40" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert losses[-1] < losses[0]
    report = json.loads((out / "validation.json").read_text())
    assert report["steps"] == 40
    assert report["best_step"] in (20, 40)
    held_out = report["metrics"]["num_real"] + report["metrics"]["num_fake"]
    assert held_out + report["train_pictures"] == len(list((data / "images_c40" / "train").iterdir()))

    model = AutoModel.from_pretrained(out)
    assert model.config.calibration != {"scale": 1.0, "bias": 0.0}
    assert model.config.operating_points["eer"] == report["metrics"]["eer_threshold"]
    (result,) = pipeline("deepfake-detection", model=str(out))([str(data / "images_c40" / "test" / "5_040.jpg")])
    assert result["label"] in ("real", "fake")


@pytest.mark.slow
def test_same_seed_same_weights_and_another_seed_others(run, data):
    first = load_file(run("--data_dir", data, output="first") / "model.safetensors")
    again = load_file(run("--data_dir", data, output="again") / "model.safetensors")
    other = load_file(run("--data_dir", data, "--seed", 1, output="other") / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_run(run, data):
    options = {"load_best_model_at_end": False, "calibrate": False}
    whole = load_file(run("--data_dir", data, output="whole", **options) / "model.safetensors")
    folder = run("--data_dir", data, output="parts", **options)
    for later in (folder / "checkpoint-6", folder / "checkpoint-4"):
        for path in later.iterdir():
            path.unlink()
        later.rmdir()
    (folder / "model.safetensors").unlink()
    resumed = load_file(
        run("--data_dir", data, "--resume_from_checkpoint", "true", output="parts", **options) / "model.safetensors"
    )
    different = [name for name in whole if not torch.equal(whole[name], resumed[name])]
    assert different == []


def test_learning_rates_and_frozen_modules(run, data):
    options = {"max_steps": 2, "load_best_model_at_end": False, "calibrate": False, "save_steps": 1}
    out = run("--data_dir", data, "--freeze", "vision_tower", learning_rates={}, **options)
    before, after = (load_file(out / folder / "model.safetensors") for folder in ("checkpoint-1", "checkpoint-2"))
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("vision_tower.")} <= frozen
    assert "detector.classifier.weight" not in frozen
    optimizer = torch.load(out / "checkpoint-2" / "optimizer.pt", weights_only=True)
    rates = {group["initial_lr"] for group in optimizer["param_groups"]}
    assert rates == {0.01}


def test_modules_get_their_own_learning_rate(run, data):
    out = run("--data_dir", data, max_steps=2, calibrate=False)
    optimizer = torch.load(out / "checkpoint-2" / "optimizer.pt", weights_only=True)
    sizes = {}
    for group in optimizer["param_groups"]:
        sizes[group["initial_lr"]] = sizes.get(group["initial_lr"], 0) + len(group["params"])
    model = AutoModel.from_pretrained(out)
    model.freeze_unused()
    assert sizes[0.001] == sum(weight.requires_grad for weight in model.vision_tower.parameters())
    assert sizes[0.01] == sum(weight.requires_grad for weight in model.detector.parameters())


def test_data_folder_from_the_environment(run, data, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_DATA", str(data.parent))
    assert (run(max_steps=2, calibrate=False) / "model.safetensors").is_file()


@pytest.mark.slow
def test_start_from_a_checkpoint(run, data):
    first = run("--data_dir", data, output="first", max_steps=2, calibrate=False)
    changes = dict.fromkeys(("model_type", "model_config", "image_processor"))
    second = run("--data_dir", data, "--model_name_or_path", first, output="second", max_steps=2, **changes)
    assert (second / "processor_config.json").read_text() == (first / "processor_config.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 0.1}, "learning_rat"),
        ({"model_type": "resnet"}, "'resnet'.*m2f2_det"),
        ({"model_name_or_path": "somewhere"}, "model_type.*model_name_or_path"),
        ({"model_type": None}, "model_type.*model_name_or_path"),
        ({"dataset": "imagenet"}, "'imagenet'.*ddvqa"),
        ({"dataset_config": "c99"}, "c99"),
        ({"train_split": "dev"}, "'dev'.*train, test"),
        ({"validation_fraction": 1.5}, "fraction is 1.5"),
        ({"learning_rates": {"vision": 0.1}}, "learning_rates.*vision"),
        ({"freeze": ["tower"]}, "freeze.*tower"),
        ({"shift_cell": -8}, "shift_cell is -8"),
        ({"cpu_threads": 0}, "cpu_threads is 0"),
        ({"dataloader_drop_last": True}, "dataloader_drop_last"),
        ({"model_config": "{broken"}, "model_config.*{broken"),
        ({"model_config": {**RECIPE["model_config"], "variant": "sine"}}, "sine"),
        (
            {"model_config": {**RECIPE["model_config"], "encoder_config": {"type": "residual_energy", "wide": 3}}},
            "wide",
        ),
    ],
)
def test_wrong_recipes(run, data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run("--data_dir", data, **changes)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_unknown_option(run, data):
    with pytest.raises(ValueError, match="lerning_rate"):
        run("--data_dir", data, "--lerning_rate", "1")


def test_no_data_at_all(run):
    with pytest.raises(ValueError, match="DEEPFAKE_DATA"):
        run()


def test_missing_data_folder(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run("--data_dir", tmp_path / "nowhere")


def test_split_of_one_class(run, tmp_path):
    reals = [f"5_{video:03d}" for video in range(8)]
    tree = write_tree(tmp_path / "ddvqa", reals, stems(range(20, 22)))
    with pytest.raises(ValueError, match=r"training split .*\d real, 0 fake"):
        run("--data_dir", tree)


def test_validation_of_one_class(run, tmp_path):
    pictures = [*stems(range(6)), *(f"5_{video}" for video in range(100, 160))]
    tree = write_tree(tmp_path / "ddvqa", pictures, stems(range(20, 22)))
    with pytest.raises(ValueError, match=r"validation split .*\d real, 0 fake"):
        run("--data_dir", tree, validation_fraction=0.02, validation_seed=0)


def test_empty_split(run, tmp_path):
    tree = write_tree(tmp_path / "ddvqa", stems(range(4)), stems(range(20, 22)))
    for path in (tree / "images_c40" / "train").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="images_c40/train"):
        run("--data_dir", tree)


def test_listed_picture_that_is_missing(run, tmp_path):
    tree = write_tree(tmp_path / "ddvqa", stems(range(4)), stems(range(20, 22)))
    (tree / "images_c40" / "train" / "0_000_001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"0_000_001\.jpg"):
        run("--data_dir", tree)
    assert not (tmp_path / "out").exists()


def test_picture_that_goes_missing_is_named(run, tmp_path, monkeypatch):
    """Between the reading of the list and the training; checkpoints already written stay whole."""
    tree = write_tree(tmp_path / "ddvqa", stems(range(4)), stems(range(20, 22)))
    load = entry.load_train_and_validation

    def load_then_lose(*arguments, **options):
        rows = load(*arguments, **options)
        for path in (tree / "images_c40" / "train").glob("0_*.jpg"):
            path.unlink()
        return rows

    monkeypatch.setattr(entry, "load_train_and_validation", load_then_lose)
    with pytest.raises(ValueError, match=r"images_c40/train/0_.*\.jpg"):
        run("--data_dir", tree)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_resume_from_nothing(run, data):
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        run("--data_dir", data, "--resume_from_checkpoint", "true")


def test_every_recipe_of_this_script_parses():
    recipes = sorted(RECIPES.glob("*.yaml"))
    assert RECIPES / "m2f2_det_default.yaml" in recipes
    model, data, training = entry.parse_recipe(["--config", str(RECIPES / "m2f2_det_default.yaml")])
    assert (model.model_type, data.dataset, training.metric_for_best_model) == ("m2f2_det", "ddvqa", "auc")
