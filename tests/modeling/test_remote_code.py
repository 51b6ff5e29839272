"""`modeling/` as the Hub's remote code: a folder that carries it loads where this package is not installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pictures import random_pictures
from tiny_models import tiny_m2f2_det
from transformers import AutoModel, AutoProcessor

import deepfake_detectors

TESTS = Path(__file__).parent.parent

SAVE = """
import sys
sys.path.insert(0, sys.argv[2])
from tiny_antifakeprompt import antifakeprompt, antifakeprompt_processor
from tiny_llm import m2f2_det_llm, m2f2_det_processor
from tiny_models import m2f2_det, verdict_processor
from tiny_lvlm_dfd import lvlm_dfd, lvlm_dfd_llm, lvlm_dfd_processor, lvlm_verdict_processor
kind, folder = sys.argv[1], sys.argv[3]
model, processor = {
    "cosine": lambda: (m2f2_det("cosine"), verdict_processor()),
    "bridge": lambda: (m2f2_det("bridge"), verdict_processor()),
    "llm": lambda: (m2f2_det_llm(), m2f2_det_processor()),
    "antifakeprompt": lambda: (antifakeprompt(), antifakeprompt_processor()),
    "lvlm_dfd": lambda: (lvlm_dfd(), lvlm_verdict_processor()),
    "lvlm_dfd_llm": lambda: (lvlm_dfd_llm(), lvlm_dfd_processor()),
}[kind]()
type(model.config).register_for_auto_class()
type(model).register_for_auto_class("AutoModel")
type(processor).register_for_auto_class()
type(processor.image_processor).register_for_auto_class()
model.save_pretrained(folder)
processor.save_pretrained(folder)
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
print(json.dumps(model.detect(**inputs).logits.tolist()))
"""


def run(code: str, *arguments: object, home: Path) -> str:
    environment = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment, cwd=home
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("kind", ["cosine", "bridge", "llm", "antifakeprompt", "lvlm_dfd", "lvlm_dfd_llm"])
def test_folder_loads_without_the_package(kind, tmp_path):
    folder, picture = tmp_path / "saved", tmp_path / "picture.png"
    random_pictures(1)[0].save(picture)
    run(SAVE, kind, TESTS, folder, home=tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel"}
    remote = torch.tensor(json.loads(run(LOAD, folder, picture, home=tmp_path).splitlines()[-1]))

    # with the package imported, its own classes load the same folder and no trust is asked for
    inputs = AutoProcessor.from_pretrained(folder)(images=random_pictures(1), return_tensors="pt")
    assert torch.allclose(AutoModel.from_pretrained(folder).detect(**inputs).logits, remote, atol=1e-5)


JUDGE = """
import json, sys
sys.modules["deepfake_detectors"] = None
from transformers import pipeline
judge = pipeline("deepfake-detection", model=sys.argv[1], trust_remote_code=True)
print(json.dumps(judge(sys.argv[2])["fake_probability"]))
"""


def test_saved_pipeline_judges_without_the_package(tmp_path):
    folder, saved, picture = tmp_path / "folder", tmp_path / "saved", tmp_path / "picture.png"
    random_pictures(1)[0].save(picture)
    detector = deepfake_detectors.pipeline(model=tiny_m2f2_det(folder))
    detector.save_pretrained(saved, remote_code=True)
    assert type(detector.model)._auto_class is None and not hasattr(detector.model.config, "auto_map")
    remote = json.loads(run(JUDGE, saved, picture, home=tmp_path).splitlines()[-1])
    assert remote == pytest.approx(detector(str(picture))["fake_probability"], abs=1e-5)
    detector.save_pretrained(tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("*.py"))
