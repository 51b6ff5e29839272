"""Full-size honesty: the official key list against our model on the meta device, and the heads at official width."""

import json
import zlib
from math import prod

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from deepfake_detectors.conversion.imagebind import IMAGEBIND_TABLE, reshape_imagebind, split_lora
from deepfake_detectors.conversion.key_table import rename_keys
from deepfake_detectors.conversion.lvlm_dfd import CHECKPOINT_TABLE, IMAGEBIND
from deepfake_detectors.modeling.configuration_imagebind import ImageBindConfig
from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.modeling_imagebind import ImageBindModel
from deepfake_detectors.modeling.modeling_lvlm_dfd import LvlmDfdForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_heads import (
    LvlmDfdClassifier,
    LvlmDfdLocator,
    LvlmDfdPromptLearner,
)
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import LvlmDfdForConditionalGeneration
from support.golden_files import golden_folder
from support.lvlm_dfd_folders import read_config

FOLDER = golden_folder("lvlm_dfd")
TABLE = json.loads((FOLDER / "full_shapes.json").read_text())
SHAPES = {name: tuple(shape) for name, shape in TABLE["shapes"].items()}
COUNTS = TABLE["param_counts"]
MASK, STEM = "modality_preprocessors.text.mask", "rgbt_stem.proj.1.weight"
LLM_WIDTH = SHAPES["llama_proj.weight"][0]


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        # The language model is not in the table; its width is.
        text_config = {"model_type": "llama", "hidden_size": LLM_WIDTH, "num_hidden_layers": 1}
        return LvlmDfdForConditionalGeneration(LvlmDfdConfig(text_config=text_config))


@pytest.fixture(scope="module")
def renamed():
    tensors = {name: torch.empty(shape, device="meta") for name, shape in SHAPES.items()}
    names = rename_keys(tensors, CHECKPOINT_TABLE, "full size")
    return split_lora({new: tensors[old] for old, new in names.items()})


def test_lvlm_dfd_full_size_keys_map_completely(model, renamed):
    ours = {n: shape for n, shape in shapes_of(model).items() if not n.startswith("language_model.")}
    assert {n: tuple(t.shape) for n, t in reshape_imagebind(renamed[0], IMAGEBIND).items()} == ours


def test_lvlm_dfd_full_size_lora_fits(model, renamed):
    shapes, (_, pairs) = shapes_of(model), renamed
    for name, (a, b) in pairs.items():
        assert (b.shape[0], a.shape[1]) == shapes[f"{name}.weight"]
        assert a.shape[0] == b.shape[1]
    elements = sum(a.numel() + b.numel() for a, b in pairs.values())
    assert elements == sum(count for group, count in COUNTS.items() if group.endswith("(lora)"))


def test_lvlm_dfd_full_size_parameter_count(model):
    ours = sum(t.numel() for n, t in model.state_dict().items() if not n.startswith("language_model."))
    mask = prod(next(shape for name, shape in SHAPES.items() if name.endswith(MASK)))
    stem = next(shape for name, shape in SHAPES.items() if name.endswith(STEM))
    removed_by_summing = prod(stem) - prod(stem) // stem[2]
    official = sum(count for group, count in COUNTS.items() if not group.endswith("(lora)"))
    assert ours == official - removed_by_summing - mask
    # BatchNorm statistics are in the table as well as in our state dict.
    assert sum(p.numel() for n, p in model.named_parameters() if not n.startswith("language_model.")) < ours


def test_lvlm_dfd_full_size_groups_add_up():
    without_lora = {name: shape for name, shape in SHAPES.items() if ".lora_" not in name}
    for group, count in COUNTS.items():
        if not group.endswith("(lora)"):
            assert sum(prod(s) for name, s in without_lora.items() if f"{name}.".startswith(f"{group}.")) == count


def test_lvlm_dfd_full_size_detector_is_a_part_of_it(model):
    with torch.device("meta"):
        detector = LvlmDfdForDeepfakeDetection(LvlmDfdConfig())
    assert shapes_of(detector) == {n: s for n, s in shapes_of(model).items() if n.startswith("detector.")}


def test_lvlm_dfd_full_size_public_imagebind_maps_completely():
    prefix = "visual_encoder."
    official = {n.removeprefix(prefix): s for n, s in SHAPES.items() if n.startswith(prefix) and ".lora_" not in n}
    others = {f"modality_trunks.{name}.blocks.0.attn.bias_k": (1, 1, 768) for name in ("audio", "depth", "imu")}
    tensors = {name: torch.empty(shape, device="meta") for name, shape in {**official, **others}.items()}
    names = rename_keys(tensors, IMAGEBIND_TABLE, "ImageBind")
    found = reshape_imagebind({new: tensors[old] for old, new in names.items()})
    with torch.device("meta"):
        assert {n: tuple(t.shape) for n, t in found.items()} == shapes_of(ImageBindModel(ImageBindConfig()))


# heads at official width: weights by formula


def noise(key, count, offset):
    start = (zlib.crc32(key.encode()) % 10007) / 10007 + offset
    angle = np.arange(count, dtype=np.float64) * 12.9898 + start
    wave = np.sin(angle) * 43758.5453
    return torch.from_numpy(2 * (wave - np.floor(wave)) - 1)


def fill_by_formula(module, prefix, offset):
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            key = f"{prefix}.{name}"
            u = noise(key, tensor.numel(), offset).reshape(tensor.shape) if tensor.is_floating_point() else None
            norm = f"{name.rsplit('.', 1)[0]}.running_mean" in module.state_dict()
            if u is None:
                continue
            if name == "base_prompts":
                value = u
            elif tensor.ndim > 1:
                value = u * (3 / prod(tensor.shape[1:])) ** 0.5
            elif name.endswith("running_var"):
                value = 1 + 0.5 * u**2
            elif name.endswith("running_mean"):
                value = 0.1 * u
            elif norm and name.endswith("weight"):
                value = 1 + 0.1 * u
            else:
                value = 0.05 * u
            tensor.copy_(value)
    return module.eval()


@pytest.fixture(scope="module")
def full_width():
    offset = read_config(FOLDER)["full_width_heads"]["offset"]
    config = LvlmDfdConfig(text_config={"model_type": "llama", "hidden_size": LLM_WIDTH, "num_hidden_layers": 1})
    grid, side = config.imagebind_config.vision_config.grid_size, config.image_size
    maps = []
    for level in range(len(config.tap_layers)):
        small = 20 * noise(f"map{level}", 2 * grid * grid, offset).reshape(1, 2, grid, grid).float()
        maps.append(F.interpolate(small, size=(side, side), mode="bilinear", align_corners=True) / 4)
    locator = fill_by_formula(LvlmDfdLocator(config), "locator", offset)
    classifier = fill_by_formula(LvlmDfdClassifier(config), "classifier", offset)
    learner = fill_by_formula(LvlmDfdPromptLearner(config), "prompt_learner", offset)
    kept = {}
    learner.meta_net1.register_forward_hook(lambda _, __, output: kept.update(fpl_meta1=output))
    with torch.no_grad():
        mask = locator(maps).softmax(dim=1)[:, 1:]
        probabilities = classifier(maps).exp()
        prompts = learner(maps, mask, probabilities)
    return {
        **kept,
        "class_probs": probabilities,
        "forgery_prompts": prompts,
        "locator_mask_fake_stride8": mask[:, 0, ::8, ::8],
    }


FULL_WIDTH = load_file(FOLDER / "full_width_heads.safetensors")


@pytest.mark.parametrize("name", sorted(FULL_WIDTH))
def test_lvlm_dfd_heads_at_full_width(name, full_width):
    assert name in full_width, "a golden tensor that this test does not reproduce"
    expected = FULL_WIDTH[name]
    assert full_width[name].shape == expected.shape
    difference = (full_width[name] - expected).abs().max().item()
    assert difference <= 2e-4 * max(1.0, expected.abs().max().item())
