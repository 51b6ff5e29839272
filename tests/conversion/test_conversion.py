"""What holds of `convert` whatever the family."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from deepfake_detectors.conversion import CONVERTERS, check_request, convert
from deepfake_detectors.conversion.merge import merge
from deepfake_detectors.families import FAMILIES
from support.golden_files import golden_folder
from support.m2f2_det_folders import cosine_fields, read_config
from support.tiny_models import tiny_m2f2_det

COSINE = golden_folder("m2f2_det") / "llava_detector"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A file of the detector with its image tower, and the sizes of its model."""
    path = tmp_path_factory.mktemp("official") / "model.safetensors"
    save_file(load_file(COSINE / "model.safetensors"), path)
    return path, cosine_fields(read_config(COSINE))


def test_every_family_of_the_package_has_a_converter():
    assert set(FAMILIES) <= set(CONVERTERS)
    for family in CONVERTERS:
        check_request(family, {"config": {}})


def test_unknown_families_and_options(tmp_path):
    with pytest.raises(ValueError, match="'nonsense'") as caught:
        convert("nonsense", [], tmp_path / "out")
    assert all(name in str(caught.value) for name in CONVERTERS)
    with pytest.raises(ValueError, match="lora"):
        convert("m2f2_det", [], tmp_path / "out", lora="fold")
    assert not (tmp_path / "out").exists()


def test_one_source_needs_no_list(official, tmp_path):
    path, fields = official
    assert convert("m2f2_det", str(path), tmp_path / "one", config=fields) == tmp_path / "one"
    convert("m2f2_det", [path], tmp_path / "list", config=fields)
    assert contents(tmp_path / "one") == contents(tmp_path / "list")


def test_overwrite_replaces_a_checkpoint(official, tmp_path):
    path, fields = official
    output = convert("m2f2_det", path, tmp_path / "out", config=fields)
    fresh = contents(output)
    for name in ("config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.txt"):
        (output / name).write_text("old")
    before = contents(output)
    with pytest.raises(ValueError, match="not an empty folder"):
        convert("m2f2_det", path, output, config=fields)
    with pytest.raises(ValueError, match="does not fit the model"):
        convert("m2f2_det", path, output, overwrite=True)
    assert contents(output) == before
    convert("m2f2_det", path, output, config=fields, overwrite=True)
    assert contents(output) == {**fresh, "notes.txt": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_base_may_be_replaced_by_its_merger(tmp_path):
    base = tiny_m2f2_det(tmp_path / "base")
    name, weight = next((n, w) for n, w in load_file(base / "model.safetensors").items() if w.ndim == 2)
    delta = tmp_path / "delta.safetensors"
    save_file({name: weight + 1}, delta)
    with pytest.raises(ValueError, match="not an empty folder"):
        merge(base, delta, base)
    merge(base, delta, base, overwrite=True)
    assert torch.equal(load_file(base / "model.safetensors")[name], weight + 1)
    assert type(AutoModel.from_pretrained(base)).__name__ == "M2F2DetForDeepfakeDetection"


def test_no_index_leads_out_of_a_base(tmp_path):
    base = tiny_m2f2_det(tmp_path / "base")
    (base / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    names = load_file(tmp_path / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, str(tmp_path / "elsewhere.safetensors"))}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"elsewhere\.safetensors"):
        merge(base, tmp_path / "elsewhere.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()
