"""Every recipe of supervised fine-tuning: it parses, and its miniature trains a folder that loads on real pictures."""

import json

import pytest
import torch
from transformers import AutoModel, pipeline

from deepfake_detectors.conversion.merge import merge
from deepfake_detectors.train.train_sft import main, parse_sft_recipe
from support.real_data import needs_real_data, real_data
from support.sft_runs import BASES, RECIPES, SFT_RECIPES, few_real_pictures, losses, recipe

STEPS = 16


@pytest.mark.parametrize("name", [name + kind for name in SFT_RECIPES for kind in ("", "_mini")])
def test_recipe_parses(name):
    model, _, training = parse_sft_recipe(["--config", str(RECIPES / f"{name}.yaml"), "--use_cpu", "true"])
    assert training.output_dir == f"outputs/{name}"
    assert training.report_to == ["tensorboard"]
    assert training.load_best_model_at_end
    assert training.lr_scheduler_type == "cosine"
    assert model.use_peft == (SFT_RECIPES[name.removesuffix("_mini")] == "lvlm_dfd" or "lora" in name or "3" in name)


@pytest.mark.parametrize("name", SFT_RECIPES)
def test_miniature_trains_the_same_parts(name):
    whole, small = recipe(name), recipe(f"{name}_mini")
    for field in ("train_only", "train_vision", "use_peft", "lora_target_modules", "lora_modules_to_save"):
        assert whole.get(field) == small.get(field), field


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return few_real_pictures(real_data("ddvqa"), tmp_path_factory.mktemp("data") / "ddvqa")


@needs_real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", SFT_RECIPES)
def test_miniature_trains_a_folder_that_loads(name, pictures, tmp_path, monkeypatch):
    base = BASES[SFT_RECIPES[name]](tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    options = {
        "model_name_or_path": base,
        "data_dir": pictures,
        "output_dir": tmp_path / "out",
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "eval_steps": STEPS // 2,
        "save_steps": STEPS // 2,
        "logging_steps": 1,
        "validation_pictures": 16,
        "learning_rate": 0.02,
        "cpu_threads": 1,
        "disable_tqdm": True,
    }
    arguments = ["--config", str(RECIPES / f"{name}_mini.yaml")]
    main(arguments + [str(part) for key, value in options.items() for part in (f"--{key}", value)])

    out = tmp_path / "out"
    found = losses(out, STEPS)
    assert len(found) == STEPS
    assert sum(found[-4:]) < sum(found[:4])
    report = json.loads((out / "validation.json").read_text())
    assert report["validation_pictures"] == 16
    assert 0 <= report["metrics"]["eval_auc"] <= 1
    assert list((out / "runs").rglob("events.*"))  # TensorBoard, by default
    assert not list(out.rglob("training_args.bin"))
    assert not [path for path in out.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    for folder in (out, out / f"checkpoint-{STEPS}"):
        assert (folder / "processor_config.json").is_file()

    picture = str(next((pictures / "images_c40" / "test").glob("*.jpg")))
    if (out / "adapter_config.json").is_file():
        assert not (out / "model.safetensors").exists()
        detector = pipeline("deepfake-detection", model=str(out))
        (direct,) = detector([picture])
        merged = merge(base, [out], tmp_path / "merged")
        (result,) = pipeline("deepfake-detection", model=str(merged))([picture])
        assert result["fake_probability"] == pytest.approx(direct["fake_probability"], abs=1e-4)
    else:
        (result,) = pipeline("deepfake-detection", model=str(out))([picture])
        trained, before = AutoModel.from_pretrained(out), AutoModel.from_pretrained(base)
        assert type(trained) is type(before)
        assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), before.parameters(), strict=True))
    assert result["label"] in ("real", "fake")
