"""FakeVLM as the Hub's remote code: verdict and explanation where this package is not installed."""

import json
from pathlib import Path

import pytest
import torch
from pictures import random_pictures
from test_remote_code import run
from transformers import AutoModel, AutoProcessor

import deepfake_detectors  # noqa: F401  (registers the family)

TESTS = Path(__file__).parent.parent

SAVE = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny_fakevlm import fakevlm, fakevlm_processor
model, processor = fakevlm(), fakevlm_processor()
type(model.config).register_for_auto_class()
type(model).register_for_auto_class("AutoModel")
type(processor).register_for_auto_class()
type(processor.image_processor).register_for_auto_class()
model.save_pretrained(sys.argv[2])
processor.save_pretrained(sys.argv[2])
"""

LOAD = """
import json, sys
sys.modules["deepfake_detectors"] = None  # importing it would fail
from PIL import Image
from transformers import AutoModel, AutoProcessor
folder = sys.argv[1]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
inputs = processor(images=Image.open(sys.argv[2]), return_tensors="pt")
output = model.explain(processor, **inputs, max_new_tokens=6)
print(json.dumps({"logits": output.logits.tolist(), "texts": output.explanations}))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    run(SAVE, TESTS, home / "saved", home=home)
    return home


def test_folder_judges_and_explains_without_the_package(saved):
    folder, picture = saved / "saved", saved / "picture.png"
    random_pictures(1)[0].save(picture)
    remote = json.loads(run(LOAD, folder, picture, home=saved).splitlines()[-1])
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder)
    output = model.explain(processor, **processor(images=random_pictures(1)), max_new_tokens=6)
    assert torch.allclose(output.logits, torch.tensor(remote["logits"]), atol=1e-5)
    assert output.explanations == remote["texts"]
