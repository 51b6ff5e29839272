"""Deltas into their base: equal to what PEFT itself gives, whatever the folders are called."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModel

from deepfake_detectors.conversion.merge import merge
from support.pictures import random_pictures
from support.tiny_models import m2f2_det_processor, tiny_m2f2_det_llm

TARGETS = r".*language_model.*\.(q_proj|v_proj)"
PROJECTORS = ["multi_modal_projector", "deepfake_projector"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_m2f2_det_llm(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def inputs():
    processor = m2f2_det_processor()
    return processor(images=random_pictures(1), text=processor.explanation_prompt("Is it real?"))


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory, inputs):
    """A trained-looking PEFT adapter in a folder whose name says nothing, and the logits it gives."""
    torch.manual_seed(1)
    model = AutoModel.from_pretrained(base)
    peft = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, modules_to_save=PROJECTORS, lora_dropout=0.0)
    )
    with torch.no_grad():
        for weight in peft.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    folder = tmp_path_factory.mktemp("adapter") / "checkpoint-7"
    peft.save_pretrained(folder)
    with torch.no_grad():
        return folder, peft.eval()(**inputs).logits


def logits_of(folder, inputs):
    with torch.no_grad():
        return AutoModel.from_pretrained(folder)(**inputs).logits


def test_peft_adapter_equals_peft(base, adapter, inputs, tmp_path):
    folder, expected = adapter
    merged = merge(base, [folder], tmp_path / "merged")
    assert torch.allclose(logits_of(merged, inputs), expected, atol=1e-4)
    assert not torch.allclose(logits_of(base, inputs), expected, atol=1e-2)


def test_official_names_give_the_same(base, inputs, tmp_path):
    """The official trainers save LoRA under LLaVA's names, and the projectors in a file of their own."""
    torch.manual_seed(2)
    width = 32
    a, b, projector = torch.randn(4, width), torch.randn(width, 4), torch.randn(width, 2)
    delta, projectors = tmp_path / "stage-3-delta", tmp_path / "non_lora_trainables.bin"
    delta.mkdir()
    key = "base_model.model.model.layers.1.self_attn.q_proj"
    save_file({f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}, delta / "adapter_model.safetensors")
    (delta / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    torch.save({"base_model.model.deepfake_projector.0.weight": projector}, projectors)
    merged = AutoModel.from_pretrained(merge(base, [delta, projectors], tmp_path / "merged"))
    before = AutoModel.from_pretrained(base)
    old, new = (m.model.language_model.layers[1].self_attn.q_proj.weight for m in (before, merged))
    assert torch.allclose(new, old + 2 * b @ a, atol=1e-5)
    assert torch.equal(merged.model.deepfake_projector.linear_1.weight, projector)
    changed = {n for (n, x), y in zip(before.named_parameters(), merged.parameters(), strict=True) if not x.equal(y)}
    assert changed == {
        "model.language_model.layers.1.self_attn.q_proj.weight",
        "model.deepfake_projector.linear_1.weight",
    }


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({"lm_head.wight": torch.zeros(1)}, None, "lm_head.wight"),
        ({"lm_head.weight": torch.zeros(2, 2)}, None, r"shape \(2, 2\)"),
        ({"model.x.lora_A.weight": torch.zeros(2, 2)}, {"r": 2, "lora_alpha": 2}, "LoRA pair"),
        (
            {f"lm_head.lora_{half}.weight": torch.zeros(2, 2) for half in "AB"},
            None,
            "adapter_config.json with their rank and alpha is missing",
        ),
        (
            {f"lm_head.lora_{half}.weight": torch.zeros(2, 2) for half in "AB"},
            {"r": 2, "lora_alpha": 2, "use_dora": True},
            "use_dora=True",
        ),
    ],
)
def test_bad_deltas_are_refused_and_nothing_is_written(base, tmp_path, tensors, config, message):
    delta = tmp_path / "delta"
    delta.mkdir()
    save_file(tensors, delta / "model.safetensors")
    if config:
        (delta / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        merge(base, [delta], tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["delta"]


def test_nothing_to_merge(base, tmp_path):
    with pytest.raises(ValueError, match="at least one delta"):
        merge(base, [], tmp_path / "merged")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty .*weights"):
        merge(base, [tmp_path / "empty"], tmp_path / "merged")
