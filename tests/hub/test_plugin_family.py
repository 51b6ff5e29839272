"""A family of another package is published without a change here: its row, its facts, its code."""

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

METADATA = "Metadata-Version: 2.1\nName: toy-detector\nVersion: 1.0\n"
ENTRY_POINTS = "[deepfake_detectors.families]\ntoy = toy_detector.family:ROW\n"
FAMILY = """
ROW = {
    "title": "Toy",
    "judges": "any picture",
    "config": "toy_detector.modeling_toy:ToyConfig",
    "verdict": "toy_detector.modeling_toy:Toy",
    "processor": "deepfake_detectors.modeling.detection:VerdictProcessor",
    "image_processor": "deepfake_detectors.modeling.image_processing_clip:M2F2DetImageProcessor",
    "doors": {"AutoModelForImageClassification": "verdict"},
    "facts": "toy_detector:data/facts.yaml",
}
"""
MODELING = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from deepfake_detectors.modeling.detection import DeepfakeDetectionMixin

from .sizes import CHANNELS


class ToyConfig(PreTrainedConfig):
    model_type = "toy"

    def __init__(self, **kwargs):
        kwargs.setdefault("id2label", {0: "real", 1: "fake"})
        self.calibration = kwargs.pop("calibration", {"scale": 1.0, "bias": 0.0})
        self.operating_points = kwargs.pop("operating_points", {})
        super().__init__(**kwargs)


class Toy(DeepfakeDetectionMixin, PreTrainedModel):
    config_class = ToyConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(CHANNELS, 2)
        self.post_init()

    def forward(self, pixel_values, **kwargs):
        return ImageClassifierOutput(logits=self.head(pixel_values.mean((2, 3))))
"""
FACTS = """
family: toy
title: A toy
summary: {Toy: Of use to nobody.}
license: mit
library_name: transformers
pipeline_tag: image-classification
tags: [toy]
uses: [Trying plug-ins.]
limits: [It knows the mean colour alone.]
architecture: [One linear layer.]
training: []
citations: [Nobody]
"""
PROGRAM = """
import sys
import deepfake_detectors
from deepfake_detectors.hub.models import publish_model
from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from deepfake_detectors.modeling.detection import VerdictProcessor
from toy_detector.modeling_toy import Toy, ToyConfig

Toy(ToyConfig()).save_pretrained("toy")
VerdictProcessor(M2F2DetImageProcessor()).save_pretrained("toy")
publish_model("toy", "me/toy", without_results=True, dry_run="dry")
detector = deepfake_detectors.pipeline(model="dry")
assert type(detector.model) is Toy, type(detector.model)
"""


@pytest.mark.slow
def test_a_plug_in_family_is_published(tmp_path):
    package = tmp_path / "site" / "toy_detector"
    information = tmp_path / "site" / "toy_detector-1.0.dist-info"
    (package / "data").mkdir(parents=True)
    information.mkdir()
    for path, text in {
        information / "METADATA": METADATA,
        information / "entry_points.txt": ENTRY_POINTS,
        package / "__init__.py": "",
        package / "family.py": FAMILY,
        package / "sizes.py": "CHANNELS = 3\n",
        package / "modeling_toy.py": MODELING,
        package / "data" / "facts.yaml": FACTS,
    }.items():
        path.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "dry").iterdir()}
    assert {"modeling_toy.py", "sizes.py", "detection.py", "model.safetensors"} <= files
    assert "family.py" not in files
    auto_map = json.loads((tmp_path / "dry" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == auto_map["AutoModelForImageClassification"] == "modeling_toy.Toy"
    card = ModelCard.load(tmp_path / "dry" / "README.md")
    assert card.data.tags == ["toy"]
    assert "Of use to nobody." in card.text and "It knows the mean colour alone." in card.text
