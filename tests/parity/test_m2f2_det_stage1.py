"""Parity of the stage-1 (bridge) detector, through convert, from_pretrained, processor and model."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor

from deepfake_detectors.conversion import convert
from support.comparison import assert_within, outputs_of, to_pictures
from support.golden_files import golden_folder
from support.m2f2_det_folders import convert_stage1, read_config, stage1_fields

FOLDER = golden_folder("m2f2_det") / "stage1_detector"
GOLDEN = read_config(FOLDER)
with safe_open(FOLDER / "io.safetensors", "pt") as file:
    NAMES = sorted(file.keys())

CNN, CLIP, BRIDGE_OUT, BRIDGE_BF16, LOGITS = 1e-5, 5e-5, 1e-4, 0.5, 1e-5


@pytest.fixture(scope="module")
def goldens():
    return load_file(FOLDER / "io.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return convert_stage1(FOLDER.parent, tmp_path_factory.mktemp("stage1") / "converted")


@pytest.fixture(scope="module")
def model(folder):
    model = AutoModel.from_pretrained(folder)
    model.config.bridge_fast_path = False  # the goldens hold what the fast path skips
    return model


@pytest.fixture(scope="module")
def inputs(folder, goldens):
    return AutoProcessor.from_pretrained(folder)(images=to_pictures(goldens["images_u8"]), return_tensors="pt")


@pytest.fixture(scope="module")
def labels(goldens):
    return torch.tensor([0] + [1] * (len(goldens["logits"]) - 1))


@pytest.fixture(scope="module")
def run(model, inputs, labels):
    """Everything one forward pass computes, under the names of the goldens: name -> (tensor, tolerance)."""
    bridge, encoder = "detector.bridge", "detector.encoder.network"
    levels = range(len(GOLDEN["cnn_taps"]))
    vision_layers = {f"clip_hidden_{tap}": f"vision_tower.encoder.layers.{tap - 1}" for tap in GOLDEN["vision_taps"]}
    select = GOLDEN["vision_select_layer"] % (GOLDEN["clip_vision"]["layers"] + 1)
    vision_layers[f"clip_hidden_m{-GOLDEN['vision_select_layer']}"] = f"vision_tower.encoder.layers.{select - 1}"
    cnn_taps = {f"block{tap}": f"{encoder}.blocks.{tap - 1}" for tap in GOLDEN["cnn_taps"]}
    names = [
        *vision_layers.values(),
        *cnn_taps.values(),
        *[f"{bridge}.encoder_projs.{i}" for i in levels],
        *[f"{bridge}.blocks.{i}" for i in levels],
        *[f"{bridge}.{part}" for part in ("vision_proj", "score", "score_norm", "reduction_norm")],
        "detector.encoder",
        "detector.encoder_proj",
        "detector.vision_proj",
    ]
    with torch.no_grad(), outputs_of(model, names) as kept:
        output = model(**inputs, labels=labels)
        singles = torch.cat([model(pixel_values=row[None]).logits for row in inputs["pixel_values"]])
    first = {name: outputs[0] for name, outputs in kept.items()}
    found = {
        "pixel_values_sample0_corner": (inputs["pixel_values"][0, :, :32, :32], 1e-6),
        "encoder_pooled": (first["detector.encoder"].pooled, CNN),
        "deepfake_features": (first["detector.encoder_proj"], CNN),
        "vision_proj_cls": (first["detector.vision_proj"][:, 0], CLIP),
        "bridge_embed": (first[f"{bridge}.reduction_norm"], 1e-5),
        "logits": (output.logits, LOGITS),
        "probs": (output.logits.softmax(-1), LOGITS),
        "logits_batch_of_one": (singles, LOGITS),
        "ce_loss_labels_011": (output.loss.reshape(1), LOGITS),
    }
    for name, layer in vision_layers.items():
        is_tap = int(name.rsplit("_", 1)[1].lstrip("m")) in GOLDEN["vision_taps"] and "_m" not in name
        state = first[layer][:, :-1] if is_tap else first[layer]
        found[name] = (state[:1], CLIP)
        found[f"{name}_mean"] = (state.mean(1), CLIP)
    for name, layer in cnn_taps.items():
        found[name] = (first[layer][:1], CNN)
        found[f"{name}_channel_mean"] = (first[layer].mean((2, 3)), CNN)
    for i in levels:
        found[f"bridge_in_cnn_{i + 1}"] = (first[f"{bridge}.encoder_projs.{i}"], CNN)
        found[f"bridge_in_clip_{i + 1}"] = (kept[f"{bridge}.vision_proj"][i], CLIP)
        found[f"bridge_out_{i + 1}"] = (first[f"{bridge}.blocks.{i}"], BRIDGE_OUT)
    for name, part in (("before", "score"), ("after", "score_norm")):
        # the official code views [tokens, batch] as one axis
        scores = first[f"{bridge}.{part}"].reshape(len(labels), -1).transpose(0, 1).reshape(-1, 1)
        found[f"bridge_scalar_{name}_layernorm"] = (scores, BRIDGE_OUT)
    prompt = model.detector.prompt_encoder
    with torch.no_grad():
        found["text_pooled"] = (prompt.pooled(), 1e-5)
        found["text_proj_unused"] = (prompt(), 1e-5)
    return found


@pytest.mark.parametrize("name", [n for n in NAMES if "_u8" not in n and "native_bf16" not in n])
def test_m2f2_det_stage1_tensor(name, run, goldens):
    assert name in run, "a golden tensor that this test does not reproduce"
    assert_within(run[name][0], goldens[name], run[name][1])


@pytest.mark.parametrize("as_floats", [False, True], ids=["pictures", "unit_floats"])
def test_m2f2_det_stage1_preprocessing_is_exact(folder, goldens, as_floats):
    processor = AutoProcessor.from_pretrained(folder)
    pictures = list(goldens["images_u8"].float() / 255) if as_floats else to_pictures(goldens["images_u8"])
    raw = processor(images=pictures, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
    assert torch.equal(raw.to(torch.uint8), goldens["pixel_values_u8"])


def test_m2f2_det_stage1_native_bf16_attention(folder, inputs, goldens):
    model = AutoModel.from_pretrained(folder, bridge_attention_dtype="bfloat16", bridge_fast_path=False)
    last = f"detector.bridge.blocks.{len(GOLDEN['cnn_taps']) - 1}"
    with torch.no_grad(), outputs_of(model, [last]) as kept:
        logits = model(**inputs).logits
    golden_name = next(n for n in NAMES if re.fullmatch(r"bridge_out_\d+_native_bf16_attention", n))
    assert_within(kept[last][0], goldens[golden_name], BRIDGE_BF16)
    assert_within(logits, goldens["logits_native_bf16_attention"], LOGITS)


def test_m2f2_det_stage1_fast_path_equals_official_logits(folder, inputs, goldens):
    model = AutoModel.from_pretrained(folder)
    assert not model.detector.runs_bridge
    assert_within(model.detect(**inputs).logits, goldens["logits"], LOGITS)


def test_m2f2_det_stage1_eager_equals_sdpa(folder, inputs, goldens):
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", bridge_fast_path=False)
    assert_within(model.detect(**inputs).logits, goldens["logits"], LOGITS)


def test_m2f2_det_stage1_absent_bridge_blocks_change_nothing(tmp_path, inputs, goldens):
    folder = convert("m2f2_det", [FOLDER / "model.safetensors"], tmp_path / "out", config=stage1_fields(GOLDEN))
    model = AutoModel.from_pretrained(folder, bridge_fast_path=False)
    assert_within(model.detect(**inputs).logits, goldens["logits"], LOGITS)


GROUPS = {
    "clip_vision_alpha": "detector.vision_alpha",
    "clip_text_alpha": "detector.text_alpha",
    "clip_text_encoder.prompt_tokens": "detector.prompt_encoder.prompt_tokens",
    "clip_text_encoder.model": "detector.prompt_encoder.text_tower.",
    "clip_vision_encoder": "vision_tower.",
    "deepfake_encoder": "detector.encoder.",
    "deepfake_proj": "detector.encoder_proj.",
    "text_proj": "detector.prompt_encoder.proj.",
    "vision_proj": "detector.vision_proj.",
    "linear_1": "detector.bridge.encoder_projs.0.",
    "linear_2": "detector.bridge.encoder_projs.1.",
    "linear_3": "detector.bridge.encoder_projs.2.",
    "clip_reduction": "detector.bridge.vision_proj.",
    "bridge_adapter_proj.bridge_adapter_proj": "detector.bridge.score",
    "bridge_adapter_proj.bridge_adapter_reduction": "detector.bridge.reduction",
    "output": "detector.classifier.",
    "bridge_adapter[0] (plain list)": "detector.bridge.blocks.0.",
    "bridge_adapter[1] (plain list)": "detector.bridge.blocks.1.",
    "bridge_adapter[2] (plain list)": "detector.bridge.blocks.2.",
}
# What LayerNorm over one element lets through to these is rounding noise.
NOISY = ("linear_", "clip_reduction", "bridge_adapter[")
NOISE = 1e-2


@pytest.mark.parametrize("fast_path", [False, True], ids=["full", "fast"])
@pytest.mark.parametrize("group", json.loads((FOLDER / "gradient_census.json").read_text()))
def test_m2f2_det_stage1_gradients(group, fast_path, census):
    without, with_gradient, largest = json.loads((FOLDER / "gradient_census.json").read_text())[group]
    gradients = [g for name, g in census[fast_path].items() if name.startswith(GROUPS[group])]
    found = [g for g in gradients if g is not None]
    peak = max((g.abs().max().item() for g in found), default=0.0)
    assert len(gradients) == without + with_gradient
    if group.startswith(NOISY):
        assert peak <= NOISE
        assert len(found) == (0 if fast_path else with_gradient)
    else:
        # the fast path spares those of the group that receive noise only
        assert len(found) == with_gradient or (fast_path and 0 < len(found) < with_gradient)
        assert peak == pytest.approx(largest, rel=1e-4, abs=1e-6)


@pytest.fixture(scope="module")
def census(folder, inputs, labels):
    gradients = {}
    for fast_path in (False, True):
        model = AutoModel.from_pretrained(folder, bridge_fast_path=fast_path)
        model.freeze_clip()
        F.cross_entropy(model(**inputs).logits, labels).backward()
        gradients[fast_path] = {name: weight.grad for name, weight in model.named_parameters()}
    return gradients
