"""`--push_to_hub` of each form of checkpoint: what arrives loads again, and nothing of it is a pickle."""

from pathlib import PurePosixPath

import pytest
from transformers import AutoModel

from deepfake_detectors.train.train_classifier import train_classifier
from support.classifier_runs import parsed, small_fields
from support.ddvqa_tree import stems, write_tree
from support.hub_server import USER, use_hub
from support.tiny_models import SIZE, tiny_instructblip

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle"}


@pytest.mark.slow
def test_what_arrives_on_the_hub(tmp_path, monkeypatch):
    data = write_tree(tmp_path / "ddvqa", stems(range(8)), stems(range(20, 22)), size=56)
    base = tiny_instructblip(tmp_path / "instructblip")
    wanted = {
        "m2f2_det_stage1_cosine": {"model.safetensors"},
        "lvlm_dfd_stage1": {"model.safetensors", "adapter/adapter_model.safetensors"},
        "antifakeprompt": {"soft_words.safetensors"},
    }
    with use_hub(monkeypatch, tmp_path / "home") as hub:
        from huggingface_hub import HfApi

        HfApi().create_repo(f"{USER}/instructblip")
        HfApi().upload_folder(repo_id=f"{USER}/instructblip", folder_path=base)
        for name, weights in wanted.items():
            repository = f"{USER}/{name}"
            changes = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "push_to_hub": True}
            changes |= {"hub_model_id": repository, "hub_private_repo": True}
            changes |= {"eval_strategy": "steps", "eval_steps": 1}
            if name == "antifakeprompt":
                changes["model_name_or_path"] = f"{USER}/instructblip"
                square = {"height": SIZE, "width": SIZE}
                changes["image_processor"] = {"size": {"shortest_edge": SIZE}, "crop_size": square}
            out = train_classifier(*parsed(tmp_path, small_fields(name, data, tmp_path / name, **changes)))

            arrived = hub.repository("model", repository)
            files = {path: content for tree in arrived.commits.values() for path, content in tree.items()}
            assert {*weights, "config.json", "processor_config.json", "validation.json", "README.md"} <= set(files)
            assert {path for path in files if path.endswith(".safetensors")} == weights
            assert not [path for path in files if PurePosixPath(path).suffix in PICKLES]
            assert arrived.private
            for path in weights:
                assert files[path] == (out / path).read_bytes()
            loaded = AutoModel.from_pretrained(repository)
            assert loaded.config.model_type == AutoModel.from_pretrained(out).config.model_type


def test_words_of_a_local_base_are_not_published(tmp_path):
    data = write_tree(tmp_path / "ddvqa", stems(range(8)), stems(range(20, 22)), size=56)
    fields = small_fields("antifakeprompt", data, tmp_path / "out", push_to_hub=True)
    with pytest.raises(ValueError, match="base"):
        train_classifier(*parsed(tmp_path, fields))
    assert not (tmp_path / "out").exists()
