"""Evaluation during fine-tuning, and losses that do not depend on how a batch is cut up."""

import json

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from deepfake_detectors.evaluation.metrics import detection_metrics
from deepfake_detectors.modeling.image_loading import load_image
from deepfake_detectors.train.train_sft import build_trainer, train_sft
from support.ddvqa_tree import stems, write_tree
from support.sft_runs import BASES, ON_THIS_MACHINE, SFT_RECIPES, losses, parsed, recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {family: build(tmp_path_factory.mktemp(family)) for family, build in BASES.items()}


def fields(name, bases, data, output, **changes):
    settings = recipe(name, **ON_THIS_MACHINE)
    settings |= {"model_name_or_path": str(bases[SFT_RECIPES[name]]), "data_dir": str(data), "dataset": "ddvqa"}
    settings |= {"dataset_config": None, "dataset_configs": ["c40_judge", "c40_explain"], "validation_fraction": 0.3}
    settings |= {"validation_pictures": None, "output_dir": str(output), "learning_rate": 0.01, "warmup_steps": 0}
    return settings | changes


@pytest.mark.parametrize("name", ["fakevlm_full", "m2f2_det_stage2", "lvlm_dfd_stage2"])
def test_metrics_are_those_of_detect(name, bases, data, tmp_path):
    trainer, detection = build_trainer(*parsed(tmp_path, fields(name, bases, data, tmp_path / "out")))
    trainer.model.train()
    metrics = trainer.evaluate()
    model, processor = (auto.from_pretrained(bases[SFT_RECIPES[name]]) for auto in (AutoModel, AutoProcessor))
    logits = torch.cat(
        [model.detect(**processor(images=[load_image(picture)])).logits for picture in detection.rows["image"]]
    )
    expected = detection_metrics(detection.rows["label"][:], (logits[:, 1] - logits[:, 0]).tolist(), threshold=0.0)
    assert 0 < expected.auc < 1
    assert metrics["eval_auc"] == pytest.approx(expected.auc)
    assert metrics["eval_eer"] == pytest.approx(expected.eer)
    assert metrics["eval_accuracy"] == pytest.approx(expected.accuracy)
    assert any("eval_auc" in entry for entry in trainer.state.log_history)  # seen by every tracker
    found = detection.measure()
    assert found["eval_auc"] == metrics["eval_auc"]


@pytest.mark.slow
def test_best_checkpoint_by_auc(bases, data, tmp_path):
    settings = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    settings |= {"load_best_model_at_end": True, "save_total_limit": None}
    out = train_sft(*parsed(tmp_path, fields("fakevlm_full", bases, data, tmp_path / "out", **settings)))
    report = json.loads((out / "validation.json").read_text())
    state = json.loads((out / "checkpoint-6" / "trainer_state.json").read_text())
    by_step = {entry["step"]: entry["eval_auc"] for entry in state["log_history"] if "eval_auc" in entry}
    assert set(by_step) == {2, 4, 6}
    assert by_step[report["best_step"]] == max(by_step.values()) == report["metrics"]["eval_auc"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("fakevlm_full", {}),
        ("m2f2_det_stage2", {}),
        # not its prompt learner: a batch norm in training sees the micro-batch
        ("lvlm_dfd_stage2", {"use_peft": False, "lora_modules_to_save": None, "train_only": ["image_projection"]}),
    ],
)
def test_accumulated_steps_equal_whole_ones(name, changes, bases, data, tmp_path):
    """Texts differ in length: a mean of micro-batch means would be another loss."""
    found = {}
    for batch, steps in ((4, 1), (1, 4)):
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "max_steps": 3}
        settings |= {"save_strategy": "steps", "save_steps": 3, **changes}
        out = train_sft(*parsed(tmp_path, fields(name, bases, data, tmp_path / str(batch), **settings)))
        found[batch] = losses(out, 3)
    assert found[1] == pytest.approx(found[4], rel=1e-4)
    assert len(set(found[4])) == 3
