"""Folders that version 0.1 saved, one of each family, still give what version 0.1 computed.

Weights are stored as bfloat16, `expected.json` was computed by 0.1 in float32 with `dtype=torch.float32`.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from deepfake_detectors import AutoModelForDeepfakeDetection
from deepfake_detectors.families import FAMILIES
from support.pictures import random_pictures

ROOT = Path(__file__).parents[1] / "support" / "saved_by_0_1"
FOLDERS = sorted(folder.name for folder in ROOT.iterdir())
WITH_TEXT = [name for name in FOLDERS if "explanations" in json.loads((ROOT / name / "expected.json").read_text())]


def load(name, auto=AutoModel):
    folder = ROOT / name
    model = auto.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    inputs = processor(images=random_pictures(2), return_tensors="pt")
    return model, processor, inputs, json.loads((folder / "expected.json").read_text())


def test_every_family_of_0_1_is_there():
    assert (
        {json.loads((ROOT / name / "config.json").read_text())["model_type"] for name in FOLDERS}
        == {
            "m2f2_det",
            "fakevlm",
            "antifakeprompt",
            "lvlm_dfd",
        }
        <= set(FAMILIES)
    )


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForDeepfakeDetection], ids=lambda auto: auto.__name__)
@pytest.mark.parametrize("name", FOLDERS)
def test_verdicts_are_those_of_0_1(name, auto):
    model, _, inputs, expected = load(name, auto)
    logits = model.detect(**inputs).logits
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in WITH_TEXT if name in ("m2f2_det", "lvlm_dfd")])
def test_verdict_class_alone_gives_the_same(name):
    family = FAMILIES[name]
    model = family.load("verdict").from_pretrained(ROOT / name, dtype=torch.float32)
    _, _, inputs, expected = load(name)
    logits = model.detect(**inputs).logits
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", WITH_TEXT)
def test_greedy_texts_are_those_of_0_1(name):
    model, processor, inputs, expected = load(name)
    output = model.explain(processor, **inputs, **expected["generation"])
    assert output.explanations == expected["explanations"]
