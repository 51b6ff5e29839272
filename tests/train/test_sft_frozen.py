"""Frozen means frozen: which tensors of a model two steps of each stage's recipe change, batch statistics included."""

import re

import pytest
import torch

from deepfake_detectors.train.train_sft import build_trainer
from support.ddvqa_tree import stems, write_tree
from support.sft_runs import BASES, ON_THIS_MACHINE, SFT_RECIPES, parsed, recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(8)), stems(range(20, 22)))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {family: build(tmp_path_factory.mktemp(family)) for family, build in BASES.items()}


def change(name, bases, data, folder, **changes):
    """Names of the tensors that changed and of those that did not, without PEFT's wrapping."""
    whole = recipe(name)
    # In the recipe's own precision and with its activation checkpointing.
    fields = {**whole, **ON_THIS_MACHINE} | {key: whole[key] for key in ("bf16", "gradient_checkpointing")}
    fields |= {"model_name_or_path": str(bases[SFT_RECIPES[name]]), "output_dir": str(folder / "out")}
    fields |= {"dataset": "ddvqa", "data_dir": str(data), "dataset_config": None, "validation_pictures": None}
    fields |= {"dataset_configs": ["c40_judge"], "validation_fraction": 0.3}
    # All pictures in one step, and at a rate that no tensor is too large for.
    fields |= {"max_steps": 2, "learning_rate": 0.01, "lr_scheduler_type": "constant", "warmup_steps": 0, **changes}
    trainer, _ = build_trainer(*parsed(folder, fields))
    before = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    short = {key: re.sub(r"^base_model\.model\.|\.default", "", key) for key in after}
    changed = {short[key] for key in after if not torch.equal(before[key], after[key])}
    return changed, set(short.values()) - changed


def names(pool, pattern):
    found = {name for name in pool if re.fullmatch(pattern, name)}
    assert found, pattern
    return found


LLAMA = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"


def lora(targets):
    return rf"(model\.)?{targets}\.lora_[AB]\.weight"


def test_m2f2_det_stage_2_trains_the_deepfake_projector(bases, data, tmp_path):
    changed, kept = change("m2f2_det_stage2", bases, data, tmp_path)
    assert changed == {
        f"model.deepfake_projector.linear_{index}.{kind}" for index in (1, 2) for kind in ("weight", "bias")
    }
    assert {"lm_head.weight", "model.language_model.embed_tokens.weight"} <= kept
    assert names(kept, r"model\.detector\..*running_mean")


def test_m2f2_det_stage_3_trains_lora_and_both_projectors(bases, data, tmp_path):
    changed, kept = change("m2f2_det_stage3", bases, data, tmp_path)
    parts = lora(rf"language_model\.layers\.\d+\.(self_attn|mlp)\.({LLAMA})")
    projectors = r"model\.(multi_modal|deepfake)_projector\.modules_to_save\.linear_[12]\.(weight|bias)"
    everything = changed | kept
    assert changed == names(everything, parts) | names(everything, projectors)
    assert not [name for name in everything if "lora" in name and "language_model" not in name]  # none in CLIP


def test_lvlm_dfd_stage_2_trains_prompt_learner_projection_and_lora(bases, data, tmp_path):
    changed, kept = change("lvlm_dfd_stage2", bases, data, tmp_path)
    parts = lora(r"language_model\.model\.layers\.\d+\.self_attn\.(q_proj|k_proj|v_proj|o_proj)")
    saved = r"(prompt_learner|image_projection)\.modules_to_save\..*"
    everything = changed | kept
    assert changed == names(everything, parts) | names(everything, saved)
    assert names(kept, r"detector\..*running_mean")  # the frozen detector's batch norms rest
    assert names(changed, r"prompt_learner\..*running_mean")


def unread_by_llava(pool):
    """What lies behind the layer of the tower that LLaVA reads; it gets no gradient."""
    layers = {int(match[1]) for name in pool if (match := re.search(r"vision_tower\.encoder\.layers\.(\d+)\.", name))}
    return names(pool, rf".*vision_tower\.(encoder\.layers\.{max(layers)}\.|post_layernorm).*")


def test_fakevlm_full_trains_everything(bases, data, tmp_path):
    changed, kept = change("fakevlm_full", bases, data, tmp_path)
    assert kept == unread_by_llava(changed | kept)


def test_fakevlm_without_vision_keeps_the_tower(bases, data, tmp_path):
    changed, kept = change("fakevlm_full", bases, data, tmp_path, train_vision=False)
    assert kept == names(changed | kept, r"model\.vision_tower\..*")


def test_fakevlm_lora_trains_lora_everywhere_and_the_projector(bases, data, tmp_path):
    changed, kept = change("fakevlm_lora", bases, data, tmp_path, conversation="verdict")
    everything = changed | kept
    adapters = names(everything, lora(rf"language_model\.layers\.\d+\.(self_attn|mlp)\.({LLAMA})"))
    adapters |= names(everything, lora(r"vision_tower\.encoder\.layers\.\d+\.(self_attn|mlp)\.\w+"))
    assert adapters == {name for name in everything if "lora_" in name}
    projector = names(everything, r"model\.multi_modal_projector\.modules_to_save\..*")
    assert changed == (adapters - unread_by_llava(everything)) | projector
