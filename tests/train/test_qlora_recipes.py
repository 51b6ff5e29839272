"""QLoRA and vision-tower LoRA of FakeVLM: the recipes parse, hit what they say, and are refused where they must."""

import re

import pytest

from deepfake_detectors.train.families import four_bit_language_model
from deepfake_detectors.train.train_sft import parse_sft_recipe
from support.sft_runs import RECIPES
from support.tiny_models import fakevlm


@pytest.fixture(scope="module")
def layers():
    return [name for name, module in fakevlm().named_modules() if type(module).__name__ == "Linear"]


def read(name, *options):
    return parse_sft_recipe(["--config", str(RECIPES / f"{name}.yaml"), "--use_cpu", "true", *options])[0]


@pytest.mark.parametrize(
    ("name", "part"), [("fakevlm_qlora", "language_model"), ("fakevlm_lora_vision", "vision_tower")]
)
def test_targets_are_every_linear_layer_of_one_part(name, part, layers):
    pattern = read(name).lora_target_modules
    hit = [layer for layer in layers if re.fullmatch(pattern, layer)]
    assert hit and hit == [layer for layer in layers if f"{part}." in layer]


def test_four_bits_are_refused_without_the_library(monkeypatch):
    monkeypatch.setattr("deepfake_detectors.train.families.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes, which is not installed.*load_in_4bit: false"):
        four_bit_language_model(read("fakevlm_qlora"))


def test_four_bits_are_for_the_language_model(monkeypatch):
    monkeypatch.setattr("deepfake_detectors.train.families.find_spec", lambda name: object())
    config = four_bit_language_model(read("fakevlm_qlora"))
    assert (config.load_in_4bit, config.bnb_4bit_quant_type) == (True, "nf4")
    assert set(config.llm_int8_skip_modules) == {"vision_tower", "multi_modal_projector", "lm_head"}
    assert four_bit_language_model(read("fakevlm_lora_vision")) is None


def test_four_bits_need_adapters():
    with pytest.raises(ValueError, match="load_in_4bit needs use_peft"):
        four_bit_language_model(read("fakevlm_qlora", "--use_peft", "false"))
