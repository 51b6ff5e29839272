"""Full-size honesty without weights: sizes and key tables against the complete official key lists."""

import json

import pytest
import torch

from deepfake_detectors.conversion.fakevlm import ORIGINAL_TABLE, STOCK_TABLE, VOCABULARY_ROWS
from deepfake_detectors.conversion.key_table import rename_keys
from deepfake_detectors.modeling.configuration_fakevlm import FakeVLMConfig
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from support.golden_files import golden_folder

FOLDER = golden_folder("fakevlm")


def table_of(name):
    content = json.loads((FOLDER / f"full_shapes_{name}.json").read_text())
    return content, {key: tuple(shape) for key, shape in content["shapes"].items()}


@pytest.fixture(scope="module")
def model():
    sizes = table_of("hf_445")[0]["header"]["sizes"]["llm"]
    with torch.device("meta"):
        return FakeVLMForDeepfakeDetection(FakeVLMConfig(text_config={"model_type": "llama", **sizes}))


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_fakevlm_parameters(model):
    assert sum(weight.numel() for weight in model.parameters()) == table_of("hf_445")[0]["header"]["parameters"]


def test_fakevlm_default_sizes_take_576_image_tokens(model):
    assert model.config.num_image_tokens == model.config.image_seq_length == 576


def test_fakevlm_released_layout_maps_completely(model):
    _, shapes = table_of("hf_445")
    names = rename_keys(shapes, STOCK_TABLE, "hf_445")
    assert {names[key]: shape for key, shape in shapes.items()} == shapes_of(model)


def test_fakevlm_original_layout_maps_completely():
    content, shapes = table_of("llava_format")
    _, stock = table_of("hf_445")
    names = rename_keys(shapes, ORIGINAL_TABLE, "llava_format")
    found = {names[key]: shape for key, shape in shapes.items()}
    for name in VOCABULARY_ROWS:
        rows, width = found[name]
        assert rows == content["header"]["sizes"]["llm"]["vocab_size"]
        found[name] = (stock[name][0], width)
    assert found == stock


def test_fakevlm_buffers_of_older_libraries_are_dropped():
    header = table_of("llava_format")[0]["header"]
    assert any("inv_freq" in text and "position_ids" in text for text in header["inferred"])
    tower = "model.vision_tower.vision_tower.vision_model.embeddings"
    old = ["model.layers.3.self_attn.rotary_emb.inv_freq", f"{tower}.position_ids"]
    assert rename_keys([*old, f"{tower}.class_embedding"], ORIGINAL_TABLE, "old") == {
        f"{tower}.class_embedding": "vision_tower.vision_model.embeddings.class_embedding"
    }


@pytest.mark.parametrize("name", ["llava_format", "hf_445"])
def test_fakevlm_counts_agree_with_the_tables(name):
    content, shapes = table_of(name)
    assert len(shapes) == content["header"]["tensors"]
    assert sum(content["param_counts"].values()) == content["header"]["parameters"]
