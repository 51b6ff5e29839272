"""Full-size honesty without weights: sizes and key tables against the complete official key lists."""

import json

import pytest
import torch

from deepfake_detectors.conversion.key_table import rename_keys
from deepfake_detectors.conversion.m2f2_det import language_model_key_table
from deepfake_detectors.conversion.m2f2_det_detector import TOWER_TABLE, official_key_table
from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from support.golden_files import golden_folder

FOLDER = golden_folder("m2f2_det")


def table_of(name):
    content = json.loads((FOLDER / f"full_shapes_{name}.json").read_text())
    return content, {key.removeprefix("module."): tuple(shape) for key, shape in content["shapes"].items()}


@pytest.fixture(scope="module")
def models():
    with torch.device("meta"):
        return {v: M2F2DetForDeepfakeDetection(M2F2DetConfig(variant=v)) for v in ("bridge", "cosine")}


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def parameters_of(module):
    return sum(weight.numel() for weight in module.parameters())


def test_m2f2_det_bridge_parameters(models):
    header = table_of("bridge")[0]["header"]
    model = models["bridge"]
    blocks = parameters_of(model.detector.bridge.blocks)
    assert blocks == header["not_in_file"]["parameters"]
    assert parameters_of(model) - blocks == header["parameters"]


def test_m2f2_det_cosine_parameters(models):
    header, tower = table_of("cosine")[0]["header"], table_of("vision_tower")[0]["header"]
    assert parameters_of(models["cosine"]) == header["parameters"] + tower["parameters"]


def test_m2f2_det_bridge_keys_map_completely(models):
    _, shapes = table_of("bridge")
    renamed = rename_keys(shapes, official_key_table("bridge", shapes), "bridge")
    ours = {name: shape for name, shape in shapes_of(models["bridge"]).items() if ".bridge.blocks." not in name}
    assert {new: shapes[old] for old, new in renamed.items()} == ours


@pytest.mark.parametrize("tower_inside", [False, True], ids=["without_tower", "with_optional_tower"])
def test_m2f2_det_cosine_keys_map_completely(models, tower_inside):
    content, shapes = table_of("cosine")
    if tower_inside:
        shapes |= {key: tuple(shape) for key, shape in content["optional_shapes"].items()}
    renamed = rename_keys(shapes, official_key_table("cosine", shapes), "cosine")
    found = {new: shapes[old] for old, new in renamed.items()}
    if not tower_inside:
        _, tower = table_of("vision_tower")
        tower = {f"clip_vision_encoder.model.{key.replace('vision_tower.', '')}": s for key, s in tower.items()}
        found |= {new: tower[old] for old, new in rename_keys(tower, TOWER_TABLE, "tower").items()}
    assert found == shapes_of(models["cosine"])


PLACEHOLDERS = 2


@pytest.fixture(scope="module")
def language_model():
    sizes = table_of("llm")[0]["header"]["sizes"]["llm"]
    text_config = {**sizes, "vocab_size": sizes["vocab_size"] + PLACEHOLDERS}
    with torch.device("meta"):
        return M2F2DetForConditionalGeneration(M2F2DetConfig(text_config=text_config))


def test_m2f2_det_llm_parameters(language_model):
    header = table_of("llm")[0]["header"]
    rows_on_top = 2 * PLACEHOLDERS * header["sizes"]["llm"]["hidden_size"]  # embed_tokens and lm_head
    assert parameters_of(language_model) - rows_on_top == header["parameters"]


def test_m2f2_det_llm_keys_map_completely(language_model):
    _, shapes = table_of("llm")
    renamed = rename_keys(shapes, language_model_key_table(shapes), "llm")
    found = {new: shapes[old] for old, new in renamed.items()}
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        rows, width = found[name]
        found[name] = (rows + PLACEHOLDERS, width)
    assert found == shapes_of(language_model)


def test_m2f2_det_counts_agree_with_the_tables():
    for name in ("bridge", "cosine", "vision_tower", "llm"):
        content, shapes = table_of(name)
        assert len(shapes) == content["header"]["tensors"]
        assert sum(content["param_counts"].values()) == content["header"]["parameters"]
