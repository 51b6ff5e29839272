"""Every tensor that the official LVLM-DFD gave: features, maps, verdict, mask, prompts, text, losses, gradients."""

import re

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoProcessor

from support.golden_files import golden_folder
from support.lvlm_dfd_folders import convert_golden, read_config
from support.lvlm_dfd_golden_runs import (
    golden_parts,
    gradient_of,
    inference_answers,
    text_answers,
    training_answers,
    training_batch,
)

FOLDER = golden_folder("lvlm_dfd")
GOLDEN = read_config(FOLDER)
CASES = GOLDEN["meta"]["training"]
with safe_open(FOLDER / "outputs.safetensors", "pt") as file:
    NAMES = sorted(file.keys())

TENSOR, LOSS, GRADIENT = 2e-4, 1e-4, 1e-2
# What the published training forward does, where it differs from this package's defaults.
OFFICIAL_TRAINING = {"prob_token_mode": "two_rows", "legacy_truncate_middle": True, "mask_threshold": None}


def adapted(model, folder):
    """The LoRA beside the weights, as in training."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """golden name -> what this package gives."""
    workspace = tmp_path_factory.mktemp("lvlm")
    golden, outputs, pictures = golden_parts(FOLDER)
    folded = convert_golden(FOLDER, workspace)
    model, processor = AutoModel.from_pretrained(folded), AutoProcessor.from_pretrained(folded)
    found = inference_answers(model, processor, pictures, golden)
    found |= text_answers(model, golden["imagebind"]["text_context"])
    stop = golden["meta"]["stop_rule"]
    model.config.stop_token_id = stop["stop_token_id"]
    asked = processor(images=pictures[stop["image"]], text=processor.dialogue_prompt(golden["question"]))
    found["stop/generated_ids"] = model.generate(**asked, max_new_tokens=64)

    model = AutoModel.from_pretrained(folded, **OFFICIAL_TRAINING)
    kept = convert_golden(FOLDER, workspace, "kept", lora="adapter", config=OFFICIAL_TRAINING)
    unmerged = adapted(AutoModel.from_pretrained(kept), kept)
    unmerged.requires_grad_(True)
    for case in reversed(CASES):  # the first is the one with gradients
        batch = training_batch(case, golden, outputs, processor, pictures)
        found |= training_answers(case, batch, model, outputs)
        if case["tag"] == "train_b2_soft" or case["tag"] == "train_b2":
            found[f"{case['tag']}/mask_gt_fake"] = batch["mask_labels"][batch["class_labels"].bool()].unsqueeze(1)
    unmerged.zero_grad()
    unmerged(**batch).loss.backward()
    for name in NAMES:
        if match := re.fullmatch(r"grad(_full)?/(.+)", name):
            found[name] = gradient_of(unmerged if match[1] else model, match[2])
    found["models"] = (model, unmerged)
    return found, outputs


def assert_close(actual, expected, tolerance):
    assert tuple(actual.shape) == tuple(expected.shape)
    difference = (actual.detach().double() - expected.double()).abs().max().item()
    assert difference <= tolerance, f"largest difference {difference:.3g}, allowed {tolerance:.3g}"


@pytest.mark.parametrize("name", NAMES)
def test_lvlm_dfd_tensor(name, run):
    found, outputs = run
    assert name in found, "a golden tensor that this test does not reproduce"
    actual, expected = found[name], outputs[name]
    largest = expected.double().abs().max().item()
    if not expected.is_floating_point() and not name.endswith("mask_gt_fake"):
        assert torch.equal(actual.long(), expected.long())
    elif name.startswith("grad"):
        assert_close(actual, expected, GRADIENT * largest)
    elif name.endswith("mask_gt_fake"):
        assert_close(actual, expected.float() / 255 if expected.dtype == torch.uint8 else expected, 0)
    else:
        if name.startswith("train") and name.split("/")[1] in ("inputs_embeds", "logits"):
            # Padded positions are meaningless.
            expected = expected * outputs[f"{name.split('/')[0]}/attention_mask"].unsqueeze(-1)
        assert_close(actual, expected, TENSOR * max(1.0, largest))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["tag"])
@pytest.mark.parametrize("loss", ["lm_loss", "focal", "dice", "bce"])
def test_lvlm_dfd_loss(case, loss, run):
    assert abs(run[0][f"{case['tag']}/{loss}"].item() - case[loss]) <= LOSS


def test_lvlm_dfd_gradient_norms_of_the_released_forward(run):
    # LoRA of the language model has gradients only where it is kept beside the weights.
    model, unmerged = run[0]["models"]
    for name, norm in CASES[0]["grad_norms"].items():
        found = gradient_of(unmerged if "lora_" in name else model, name).norm().item()
        assert found == pytest.approx(norm, rel=GRADIENT, abs=1e-5), name


def test_lvlm_dfd_gradient_norms_without_no_grad(run):
    unmerged = run[0]["models"][1]
    for name, norm in GOLDEN["meta"]["grad_full"]["grad_norms"].items():
        assert gradient_of(unmerged, name).norm().item() == pytest.approx(norm, rel=GRADIENT, abs=1e-5), name
    assert gradient_of(unmerged, "image_decoder.fc.0.weight").abs().max() > 0
