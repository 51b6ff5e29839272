"""Every recipe of classifier training: it parses, and its miniature trains a folder that loads on real pictures."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, CLIPConfig, CLIPModel, CLIPTextModel, CLIPVisionModel, pipeline

from deepfake_detectors.conversion.merge import merge
from deepfake_detectors.train.arguments import ModelArguments
from deepfake_detectors.train.families import build_model, load_pretrained_parts
from deepfake_detectors.train.train_classifier import main, parse_recipe, train_classifier
from support.classifier_runs import CLASSIFIER_RECIPES, parsed, small_fields
from support.ddvqa_tree import stems, write_tree
from support.real_data import needs_real_data, real_data
from support.sft_runs import RECIPES, few_real_pictures, losses, recipe
from support.tiny_models import antifakeprompt_processor, tiny_instructblip, tiny_lvlm_dfd_llm

STEPS = 24


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)), size=56)


@pytest.mark.parametrize("name", [name + kind for name in CLASSIFIER_RECIPES for kind in ("", "_mini")])
def test_recipe_parses(name):
    options = ["--config", str(RECIPES / f"{name}.yaml"), "--use_cpu", "true", "--fp16", "false"]
    model, _, training = parse_recipe(options)
    assert training.output_dir == f"outputs/{name}"
    assert training.report_to == ["tensorboard"]
    assert training.load_best_model_at_end
    assert (model.model_type is None) == name.startswith("antifakeprompt")


@pytest.mark.parametrize("name", CLASSIFIER_RECIPES)
def test_miniature_trains_the_same_parts_in_the_same_way(name):
    whole, small = recipe(name), recipe(f"{name}_mini")
    same = ("freeze", "optimizer", "decay_everything", "lr_scheduler_type", "lr_schedule", "plateau_metric")
    for field in (*same, "max_grad_norm", "weight_decay", "mirror", "blur", "jpeg", "random_crop"):
        assert whole.get(field) == small.get(field), field
    for field in ("target_modules", "modules_to_save"):
        assert whole.get("lora", {}).get(field) == small.get("lora", {}).get(field)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return few_real_pictures(real_data("ddvqa"), tmp_path_factory.mktemp("real") / "ddvqa")


@needs_real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIER_RECIPES)
def test_miniature_trains_a_folder_that_loads(name, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {
        "data_dir": pictures,
        "output_dir": tmp_path / "out",
        "max_steps": STEPS,
        "per_device_train_batch_size": 16,
        "learning_rate": 0.1 if CLASSIFIER_RECIPES[name] == "antifakeprompt" else 0.003,
        "per_device_eval_batch_size": 32,
        "eval_strategy": "steps",
        "eval_steps": STEPS,
        "save_strategy": "steps",
        "save_steps": STEPS,
        "validation_fraction": 0.2,
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    is_words = CLASSIFIER_RECIPES[name] == "antifakeprompt"
    if is_words:
        options |= {"model_name_or_path": tiny_instructblip(tmp_path / "base")}
        options["image_processor"] = json.dumps(antifakeprompt_processor().image_processor.to_dict())
    arguments = ["--config", str(RECIPES / f"{name}_mini.yaml")]
    threads = torch.get_num_threads()
    main(arguments + [str(part) for key, value in options.items() for part in (f"--{key}", value)])
    torch.set_num_threads(threads)

    out = tmp_path / "out"
    found = losses(out, STEPS)
    assert len(found) == STEPS
    # Few steps: a third of them, so that what single batches hold does not decide.
    assert sum(found[-STEPS // 3 :]) < sum(found[: STEPS // 3])
    report = json.loads((out / "validation.json").read_text())
    assert 0 <= report["metrics"]["auc"] <= 1
    assert list((out / "runs").rglob("events.*"))  # TensorBoard, by default
    assert not [path for path in out.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    assert (out / f"checkpoint-{STEPS}" / "processor_config.json").is_file()

    picture = str(next((pictures / "images_c40" / "test").glob("*.jpg")))
    (result,) = pipeline("deepfake-detection", model=str(out))([picture])
    assert 0 < result["fake_probability"] < 1
    if is_words:
        assert {path.name for path in out.glob("*.safetensors")} == {"soft_words.safetensors"}
        assert (out / "soft_words.safetensors").stat().st_size < 20_000
        whole = merge(tmp_path / "base", [out], tmp_path / "merged")
    elif CLASSIFIER_RECIPES[name] == "lvlm_dfd":
        (masked,) = pipeline("deepfake-detection", model=str(out), localize=True)([picture])
        assert masked["mask"].size == (224, 224)
        assert (out / "adapter" / "adapter_model.safetensors").is_file()
        whole = out
    else:
        whole = out
    (direct,) = pipeline("deepfake-detection", model=str(whole))([picture])
    assert direct["fake_probability"] == pytest.approx(result["fake_probability"], abs=1e-6)


@pytest.mark.slow
def test_stage_1_detector_goes_into_the_language_model(tree, tmp_path):
    """The finished stage 1 is a delta for the folder that stage 2 starts from."""
    base = tiny_lvlm_dfd_llm(tmp_path / "base")
    fields = small_fields("lvlm_dfd_stage1", tree, tmp_path / "out", max_steps=3)
    fields |= {"model_type": None, "model_config": None, "image_processor": None, "model_name_or_path": str(base)}
    fields["lora"]["target_modules"] = r".*imagebind\.vision_model\.layers\.\d+\.mlp\.fc[12]"
    detector = train_classifier(*parsed(tmp_path, {**fields, "learning_rate": 0.01}))
    merged = merge(base, [detector / "model.safetensors"], tmp_path / "merged")
    trained, joined, before = (load_file(folder / "model.safetensors") for folder in (detector, merged, base))
    assert all(torch.equal(trained[name], joined[name]) for name in trained)
    assert not torch.equal(before["detector.classifier.fc2.weight"], joined["detector.classifier.fc2.weight"])
    assert AutoConfig.from_pretrained(detector).text_config is None


@pytest.mark.slow
def test_best_words_come_back(tree, tmp_path):
    changes = {"max_steps": 6, "learning_rate": 1.0, "eval_strategy": "steps", "eval_steps": 1}
    changes |= {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}
    changes |= {"metric_for_best_model": "loss", "save_total_limit": None}
    out = train_classifier(*parsed(tmp_path, small_fields("antifakeprompt", tree, tmp_path / "out", **changes)))
    best = json.loads((out / "validation.json").read_text())["best_step"]
    words, kept = (load_file(folder / "soft_words.safetensors") for folder in (out, out / f"checkpoint-{best}"))
    assert all(torch.equal(words[name], kept[name]) for name in words)
    last = load_file(out / "checkpoint-6" / "soft_words.safetensors")
    if best != 6:
        assert not torch.equal(words["llm_soft_word"], last["llm_soft_word"])


@pytest.mark.parametrize("sides", ["both", "llm"])
def test_new_words_on_a_stock_instructblip(sides, tmp_path):
    base = tiny_instructblip(tmp_path / "base")
    torch.manual_seed(0)
    arguments = ModelArguments(model_name_or_path=str(base), model_config={"soft_word_sides": sides})
    model, processor, _ = build_model(arguments)
    words = model.soft_words()
    assert set(words) == ({"qformer_soft_word", "llm_soft_word"} if sides == "both" else {"llm_soft_word"})
    spread = torch.cat([word.flatten() for word in words.values()]).std().item()
    assert spread == pytest.approx(0.02, rel=0.5)
    assert model.config.base_model_name_or_path == str(base.resolve())
    assert processor.soft_word_sides == sides
    base_weights = load_file(base / "model.safetensors")
    table = model.state_dict()["language_model.model.embed_tokens.weight"]
    assert any(torch.equal(table, weight) for weight in base_weights.values() if weight.shape == table.shape)


def test_published_parts(tmp_path):
    """CLIP's two towers out of one published folder, beside a network that has no weights to be found here."""
    fields = recipe("m2f2_det_stage1_cosine_mini")
    model, _, _ = build_model(ModelArguments("m2f2_det", fields["model_config"], None, fields["image_processor"]))
    towers = {"vision_tower": CLIPVisionModel, "detector.prompt_encoder.text_tower": CLIPTextModel}
    clip = CLIPModel(
        CLIPConfig(
            vision_config=model.vision_tower.config.to_dict(),
            text_config=model.detector.prompt_encoder.text_tower.config.to_dict(),
        )
    )
    clip.save_pretrained(tmp_path / "clip")
    load_pretrained_parts(model, dict.fromkeys(towers, str(tmp_path / "clip")))
    for name, kind in towers.items():
        published = kind.from_pretrained(tmp_path / "clip").state_dict()
        part = model.get_submodule(name).state_dict()
        assert all(torch.equal(part[key], published[key]) for key in published)
        assert any(torch.equal(weight, part[key]) for key in part for weight in clip.state_dict().values())
    with pytest.raises(ValueError, match=r"tower.*vision_tower"):
        load_pretrained_parts(model, {"tower": "x"})
    with pytest.raises(ValueError, match="Sequential"):
        load_pretrained_parts(model, {"detector.vision_proj": "densenet121"})
    CLIPVisionModel(type(model.vision_tower.config)(hidden_size=8, num_attention_heads=2)).save_pretrained(
        tmp_path / "other"
    )
    with pytest.raises(ValueError, match="vision_tower"):
        load_pretrained_parts(model, {"vision_tower": str(tmp_path / "other")})


@pytest.mark.slow
def test_finished_lora_folder_is_the_merged_model(tree, tmp_path):
    changes = {"max_steps": 3, "learning_rate": 0.01, "twin_masks": True}
    out = train_classifier(*parsed(tmp_path, small_fields("lvlm_dfd_stage1", tree, tmp_path / "out", **changes)))
    model = AutoModel.from_pretrained(out)
    assert not [name for name in model.state_dict() if "lora" in name]
    adapter = load_file(out / "adapter" / "adapter_model.safetensors")
    heads = {name for name in adapter if "lora" not in name}
    assert any(name.endswith("running_mean") for name in heads)
    trained = model.state_dict()
    for name in heads:
        assert torch.equal(adapter[name], trained[name.removeprefix("base_model.model.")]), name
