"""`--push_to_hub`: what arrives loads again, and nothing of it is a pickle."""

import json
from pathlib import PurePosixPath

import pytest
import torch
from safetensors.torch import load
from transformers import AutoModel

from deepfake_detectors.train.train_sft import train_sft
from support.ddvqa_tree import stems, write_tree
from support.hub_server import USER, use_hub
from support.sft_runs import BASES, ON_THIS_MACHINE, SFT_RECIPES, parsed, recipe

WEIGHTS = {"m2f2_det_stage2": "model.safetensors", "m2f2_det_stage3": "adapter_model.safetensors"}
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle"}


@pytest.mark.slow
def test_what_arrives_on_the_hub(tmp_path, monkeypatch):
    data = write_tree(tmp_path / "ddvqa", stems(range(8)), stems(range(20, 22)))
    with use_hub(monkeypatch, tmp_path / "home") as hub:  # one: the trainer's client keeps its address
        for name, weights in WEIGHTS.items():
            repository = f"{USER}/{name}"
            fields = recipe(name, **ON_THIS_MACHINE)
            fields |= {"model_name_or_path": str(BASES[SFT_RECIPES[name]](tmp_path / name / "base"))}
            fields |= {"data_dir": str(data), "dataset_configs": ["c40_judge"], "validation_fraction": 0.3}
            fields |= {"output_dir": str(tmp_path / name / "out"), "max_steps": 2}
            fields |= {"save_strategy": "steps", "save_steps": 1}
            fields |= {"push_to_hub": True, "hub_model_id": repository, "hub_private_repo": True}
            out = train_sft(*parsed(tmp_path, fields))

            arrived = hub.repository("model", repository)
            files = {path: content for tree in arrived.commits.values() for path, content in tree.items()}
            assert {weights, "processor_config.json", "validation.json", "README.md"} <= set(files)
            assert not [path for path in files if PurePosixPath(path).suffix in PICKLES]
            assert not [path for path in files if path.startswith("checkpoint-")]
            assert arrived.private
            sent, written = load(files[weights]), load((out / weights).read_bytes())
            assert sent.keys() == written.keys()
            assert all(torch.equal(sent[key], written[key]) for key in sent)
            assert json.loads(files["validation.json"])["steps"] == 2
            assert AutoModel.from_pretrained(repository).can_explain
