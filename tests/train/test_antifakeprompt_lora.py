"""AntifakePrompt's LoRA baseline: InstructBLIP without learned words, LoRA in its language model."""

import json

import pytest
from safetensors.torch import load_file

from deepfake_detectors import convert, evaluate, pipeline
from deepfake_detectors.train.train_classifier import main, parse_recipe
from support.ddvqa_tree import stems, write_tree
from support.sft_runs import RECIPES, losses, recipe
from support.tiny_models import tiny_antifakeprompt, tiny_instructblip

STEPS = 12


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)), size=56)


def run(base, tree, out):
    options = {
        "model_name_or_path": base,
        "data_dir": tree,
        "output_dir": out,
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "eval_strategy": "steps",
        "eval_steps": STEPS,
        "save_strategy": "steps",
        "save_steps": STEPS,
        "validation_fraction": 0.3,
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    arguments = ["--config", str(RECIPES / "antifakeprompt_lora_mini.yaml")]
    main(arguments + [str(part) for key, value in options.items() for part in (f"--{key}", value)])
    return out


@pytest.mark.parametrize("name", ["antifakeprompt_lora", "antifakeprompt_lora_mini"])
def test_recipes_say_what_the_paper_says(name):
    options = ["--config", str(RECIPES / f"{name}.yaml"), "--use_cpu", "true", "--fp16", "false"]
    model, _, training = parse_recipe(options)
    assert training.output_dir == f"outputs/{name}"
    assert [model.lora[field] for field in ("r", "lora_alpha", "lora_dropout")] == [8, 32, 0.1]
    assert recipe("antifakeprompt_lora")["lora"] == recipe("antifakeprompt_lora_mini")["lora"]


@pytest.mark.slow
def test_miniature_trains_and_is_evaluated(tree, tmp_path):
    base = convert("antifakeprompt", [tiny_instructblip(tmp_path / "base")], tmp_path / "zero", variant="zero_shot")
    out = run(base, tree, tmp_path / "out")
    assert len(losses(out, STEPS)) == STEPS
    assert 0 <= json.loads((out / "validation.json").read_text())["metrics"]["auc"] <= 1
    adapter = load_file(out / "adapter" / "adapter_model.safetensors")
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in adapter}
    assert layers == {"q_proj", "v_proj"} and all("language_model" in name for name in adapter)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, out))
    changed = {name for name in before if not before[name].equal(after[name])}
    assert set(before) == set(after)
    assert changed and all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)
    assert all("language_model" in name for name in changed)

    results = evaluate(out, dataset="ddvqa", data_dir=tree, resamples=0)
    assert (results.content["num_real"], results.content["num_fake"]) == (2, 4)
    published = evaluate(out, real_dir=tree / "images_c40" / "test", resamples=0, protocol="paper:antifakeprompt")
    assert published.content["protocol"]["name"] == "paper:antifakeprompt"
    picture = next((tree / "images_c40" / "test").iterdir())
    scores = [pipeline(model=str(folder))(str(picture))["fake_probability"] for folder in (base, out)]
    assert scores[0] != scores[1]


@pytest.mark.slow
def test_learned_words_are_not_frozen_below_lora(tree, tmp_path):
    words = tiny_antifakeprompt(tmp_path / "words")
    with pytest.raises(ValueError, match="soft_word_sides is 'both'"):
        run(words, tree, tmp_path / "out")
