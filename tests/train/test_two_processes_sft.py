"""Two processes on CPU are really two, and train as one process with the same global batch does."""

import json

import pytest
from safetensors.torch import load_file

from deepfake_detectors.train.train_sft import train_sft
from support.ddvqa_tree import stems, write_tree
from support.sft_runs import (
    BASES,
    ON_THIS_MACHINE,
    assert_two_equal_one,
    parsed,
    recipe,
    run_in_two_processes,
    write_recipe,
)

STEPS, GLOBAL_BATCH, RATE = 5, 4, 0.01


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)))


def fields(base, data, output, batch):
    settings = recipe("m2f2_det_stage3", **ON_THIS_MACHINE)
    settings |= {"model_name_or_path": str(base), "data_dir": str(data), "output_dir": str(output)}
    # Texts of several lengths, so that a mean of means would be another loss; dropout draws differ between processes.
    settings |= {"dataset_configs": ["c40_judge", "c40_explain"], "validation_fraction": 0.3, "lora_dropout": 0.0}
    settings |= {"per_device_train_batch_size": batch, "learning_rate": RATE, "max_steps": STEPS}
    return settings | {"save_strategy": "steps", "save_steps": STEPS}


@pytest.mark.slow
def test_two_processes_equal_one(data, tmp_path):
    base = BASES["m2f2_det"](tmp_path / "base")
    alone = train_sft(*parsed(tmp_path / "one", fields(base, data, tmp_path / "one" / "out", GLOBAL_BATCH)))
    out = tmp_path / "two" / "out"
    options = write_recipe(tmp_path / "two" / "recipe.yaml", fields(base, data, out, GLOBAL_BATCH // 2))
    run_in_two_processes(options)

    assert_two_equal_one(alone, out, STEPS)
    one, two = (json.loads((folder / "validation.json").read_text()) for folder in (alone, out))
    metrics = ("eval_auc", "eval_eer", "eval_accuracy")  # each process judged half of the pictures
    assert [two["metrics"][name] for name in metrics] == [one["metrics"][name] for name in metrics]
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (alone, out)]
    for name, tensor in weights[0].items():
        # AdamW blows the rounding of a gradient near zero up to a share of the step.
        assert weights[1][name].sub(tensor).abs().max() < 0.1 * RATE, name
