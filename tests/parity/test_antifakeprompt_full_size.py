"""Full-size honesty without weights: sizes and key tables against the complete official key lists."""

import json

import pytest
import torch

from deepfake_detectors.conversion.antifakeprompt import LAVIS_TABLE, WORD_FILE_TABLE, fuse_attention_biases
from deepfake_detectors.conversion.key_table import rename_keys
from deepfake_detectors.modeling.configuration_antifakeprompt import AntifakePromptConfig
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from support.golden_files import golden_folder

FOLDER = golden_folder("antifakeprompt")


def table_of(name):
    content = json.loads((FOLDER / f"full_shapes_{name}.json").read_text())
    return content, {key: torch.empty(shape, device="meta") for key, shape in content["shapes"].items()}


def renamed_shapes(tensors):
    tensors = fuse_attention_biases(tensors)
    names = rename_keys(tensors, LAVIS_TABLE, "full size")
    return {new: tuple(tensors[old].shape) for old, new in names.items()}


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        return AntifakePromptForDeepfakeDetection(AntifakePromptConfig())


@pytest.fixture(scope="module")
def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_antifakeprompt_parameters(model):
    header = table_of("lavis")[0]["header"]
    # transformers gives the attention keys a bias; the official code has none
    vision = model.config.vision_config
    key_biases = vision.num_hidden_layers * vision.hidden_size
    assert sum(weight.numel() for weight in model.parameters()) - key_biases == header["parameters"]


def test_antifakeprompt_words_are_the_trainable_parameters(model):
    model.freeze_all_but_soft_words()
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert trainable == table_of("released_pth")[0]["header"]["parameters"]


def test_antifakeprompt_keys_map_completely(shapes):
    content, tensors = table_of("lavis")
    assert len(tensors) == content["header"]["tensors"]
    assert renamed_shapes(tensors) == shapes


def test_antifakeprompt_mapping_counts():
    content, tensors = table_of("lavis")
    check = content["mapping_check"]
    fused = fuse_attention_biases(tensors)
    assert len(tensors) - len(fused) == check["fused_pairs"]
    kept = rename_keys(fused, LAVIS_TABLE, "full size")
    assert len(fused) - len(kept) == check["dropped"]
    words = [new for new in kept.values() if new.endswith("soft_word")]
    assert len(words) == len(check["to_adapter_file"])
    assert len(kept) - len(words) - check["fused_pairs"] == check["one_to_one_equal_shape"]


def test_antifakeprompt_base_file_fills_all_but_tower_and_language_model(shapes):
    found = renamed_shapes(table_of("trimmed_base")[1])
    tower = ("vision_model.embeddings.", "vision_model.encoder.", "language_model.")
    words = {name for name in shapes if name.endswith("soft_word")}
    assert found == {n: s for n, s in shapes.items() if not n.startswith(tower) and n not in words}


def test_antifakeprompt_released_file_is_two_words(model):
    _, tensors = table_of("released_pth")
    names = rename_keys(tensors, WORD_FILE_TABLE, "released")
    found = {new: tuple(tensors[old].shape) for old, new in names.items()}
    assert found == {name: tuple(word.shape) for name, word in model.soft_words().items()}


@pytest.mark.parametrize("name", ["lavis", "trimmed_base"])
def test_antifakeprompt_sampled_targets(name):
    content, tensors = table_of(name)
    names = rename_keys(fuse_attention_biases(tensors), LAVIS_TABLE, name)
    checked = 0
    for target in content["hf_targets"]:
        if target["module"] == "InstructBlipForConditionalGeneration" and target["official"] in names:
            assert names[target["official"]] == target["hf"]
            checked += 1
    assert checked > 5
