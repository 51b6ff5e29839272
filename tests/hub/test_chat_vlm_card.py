"""The card of a chat model names its base, and says whether it answers zero-shot or was trained."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from deepfake_detectors import publish_model
from deepfake_detectors.facts import read_facts
from support.tiny_models import tiny_chat_vlm


@pytest.mark.parametrize(("trained", "word"), [(False, "Zero-shot"), (True, "Fine-tuned")])
def test_card(trained, word, tmp_path):
    source = tiny_chat_vlm(tmp_path / "model", trained=trained, base_model="Qwen/Qwen3-VL-2B-Instruct")
    folder = publish_model(source, "me/detector", without_results=True, dry_run=tmp_path / "out")
    card = ModelCard.load(Path(folder) / "README.md")
    assert card.data.base_model == "Qwen/Qwen3-VL-2B-Instruct"
    assert sum(name in card.text for name in ("Zero-shot", "Fine-tuned")) == 1 and word in card.text
    assert "licence applies to them" in card.text
    assert "transformers serve me/detector" in card.text


def test_facts_of_a_stock_config_are_those_of_the_family(tmp_path):
    config = json.loads((tiny_chat_vlm(tmp_path) / "config.json").read_text())
    assert read_facts(None, config, "ChatVlmForDeepfakeDetection", "x")["tags"][2] == "chat_vlm"
