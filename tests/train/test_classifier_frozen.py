"""Frozen means frozen: which tensors of a model two steps of each stage's recipe change, batch statistics included."""

import re

import pytest
import torch

from deepfake_detectors.train.optimization import WRAPPERS
from deepfake_detectors.train.train_classifier import build_trainer
from support.classifier_runs import parsed, small_fields
from support.ddvqa_tree import stems, write_tree
from support.sft_runs import recipe
from support.tiny_models import ENCODERS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)), size=224)


def change(name, data, folder, **changes):
    """Names of the tensors that changed, and of those that did not."""
    # At a rate that no tensor is too large for.
    settings = {"max_steps": 2, "learning_rate": 0.01, "learning_rates": {}, "lr_scheduler_type": "constant"}
    settings |= {"lr_scheduler_kwargs": None, "lr_schedule": None, "warmup_steps": 0, **changes}
    trainer, _ = build_trainer(*parsed(folder, small_fields(name, data, folder / "out", **settings)))
    before = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    return changed, set(after) - changed


def under(names, *prefixes):
    found = {name for name in names if name.startswith(prefixes)}
    assert found, prefixes
    return found


def test_m2f2_det_bridge_trains_network_projections_bridge_constant_and_head(data, tmp_path):
    changed, kept = change("m2f2_det_stage1_bridge", data, tmp_path)
    trained = under(
        changed | kept,
        "detector.encoder.",
        "detector.encoder_proj.",
        "detector.vision_proj.",
        "detector.bridge.reduction.",
        "detector.bridge.reduction_norm.",
        "detector.classifier.",
    )
    assert changed == trained | {"detector.vision_alpha", "detector.text_alpha", "detector.bridge.score_norm.bias"}
    assert under(kept, "vision_tower.")
    assert under(kept, "detector.prompt_encoder.")


def test_m2f2_det_cosine_also_trains_the_prompt(data, tmp_path):
    fields = recipe("m2f2_det_stage1_cosine_mini")["model_config"]
    config = {**fields, "encoder_config": ENCODERS["cosine"]}  # a DenseNet, as the released one
    changed, kept = change("m2f2_det_stage1_cosine", data, tmp_path, model_config=config)
    trained = under(
        changed | kept,
        "detector.encoder.",
        "detector.encoder_proj.",
        "detector.vision_proj.",
        "detector.prompt_encoder.proj.",
        "detector.classifier.",
    )
    prompt = "detector.prompt_encoder.prompt_tokens"
    assert changed == trained | {"detector.vision_alpha", "detector.text_alpha", prompt}
    assert under(kept, "vision_tower.")
    assert under(kept, "detector.prompt_encoder.text_tower.")


def test_m2f2_det_frozen_network_keeps_its_batch_statistics(data, tmp_path):
    freeze = ["vision_tower", "detector.prompt_encoder", "detector.encoder"]
    changed, kept = change("m2f2_det_stage1_bridge", data, tmp_path, freeze=freeze)
    assert not [name for name in changed if name.startswith("detector.encoder.")]
    assert [name for name in kept if name.endswith("running_mean")]


def test_lvlm_dfd_stage_1_trains_lora_class_texts_and_heads(data, tmp_path):
    changed, kept = change("lvlm_dfd_stage1", data, tmp_path, twin_masks=True)
    everything = changed | kept
    layers = r"base_model\.model\.detector\.imagebind\.(vision|text)_model\.layers\.\d+\.mlp\.fc[12]\.lora_[AB]\..*"
    text = r"base_model\.model\.detector\.imagebind\.text_projection\.lora_[AB]\..*"
    heads = r"base_model\.model\.detector\.(class_texts|image_decoder|locator|classifier)\.modules_to_save\..*"
    trained = {name for name in everything if re.fullmatch(f"{layers}|{text}|{heads}", name)}
    assert changed == trained
    assert {name for name in everything if "lora_" in name} <= trained
    plain = {WRAPPERS.sub("", name) for name in changed}
    for part in ("class_texts.ctx", "image_decoder.fc.0.weight", "locator.finalconv.weight", "classifier.fc2.weight"):
        assert f"detector.{part}" in plain
    assert [name for name in plain if name.startswith("detector.locator.") and name.endswith("running_mean")]


def test_antifakeprompt_trains_the_two_words(data, tmp_path):
    changed, kept = change("antifakeprompt", data, tmp_path)
    assert changed == {
        "qformer.embeddings.word_embeddings.soft_word",
        "language_model.model.embed_tokens.soft_word",
    }
    assert {"query_tokens", "language_projection.weight", "vision_model.post_layernorm.weight"} <= kept
