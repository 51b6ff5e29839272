"""Parity of the detector inside the language model (cosine variant), through convert, from_pretrained and detect."""

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from support.comparison import assert_within, outputs_of
from support.golden_files import golden_folder
from support.m2f2_det_folders import convert_cosine, read_config

FOLDER = golden_folder("m2f2_det") / "llava_detector"
GOLDEN = read_config(FOLDER)
with safe_open(FOLDER / "io.safetensors", "pt") as file:
    NAMES = sorted(file.keys())

CNN, CLIP, LOGITS, GRADIENT = 1e-5, 5e-5, 1e-5, 1e-5


@pytest.fixture(scope="module")
def goldens():
    return load_file(FOLDER / "io.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return convert_cosine(FOLDER.parent, tmp_path_factory.mktemp("cosine") / "converted")


@pytest.fixture(scope="module")
def pictures():
    return [Image.open(FOLDER / f"image_{i}.png") for i in range(GOLDEN["batch_size"])]


@pytest.fixture(scope="module")
def inputs(folder, pictures):
    return AutoProcessor.from_pretrained(folder)(images=pictures, return_tensors="pt")


@pytest.fixture(scope="module")
def run(folder, inputs):
    """name -> (tensor, tolerance)."""
    model = AutoModel.from_pretrained(folder)
    model.freeze_clip()
    select = GOLDEN["vision_select_layer"] % (GOLDEN["clip_vision"]["layers"] + 1)
    names = {
        "state": f"vision_tower.encoder.layers.{select - 1}",
        "encoder": "detector.encoder",
        "encoder_proj": "detector.encoder_proj",
        "vision_proj": "detector.vision_proj",
        "prompt": "detector.prompt_encoder",
    }
    labels = torch.tensor([0] + [1] * (GOLDEN["batch_size"] - 1))
    with outputs_of(model, names.values()) as kept:
        output = model(**inputs, labels=labels)
    seen = {short: kept[name][0] for short, name in names.items()}
    output.loss.backward()
    detector = model.detector
    return {
        f"clip_hidden_m{-GOLDEN['vision_select_layer']}": (seen["state"], CLIP),
        "encoder_feature_map": (seen["encoder"].feature_map[:1], CNN),
        "encoder_pooled": (seen["encoder"].pooled, CNN),
        "deepfake_features": (seen["encoder_proj"], CNN),
        "vision_proj_cls": (seen["vision_proj"][:, 0], CLIP),
        "vision_proj_patches_mean": (seen["vision_proj"][:, 1:].mean(1), CLIP),
        "cls_scaled": (detector.vision_alpha * seen["vision_proj"][:, 0], CLIP),
        "scores_scaled": (detector.text_alpha * output.patch_scores, CLIP),
        "text_pooled": (detector.prompt_encoder.pooled(), 1e-5),
        "text_proj": (seen["prompt"], 1e-5),
        "logits": (output.logits, LOGITS),
        "probs": (output.logits.softmax(-1), LOGITS),
        "ce_loss_labels_011": (output.loss.reshape(1), LOGITS),
        "grad_alphas_vision_text": (torch.stack([detector.vision_alpha.grad, detector.text_alpha.grad]), GRADIENT),
        "grad_output_weight": (detector.classifier.weight.grad, GRADIENT),
        "grad_prompt_tokens": (detector.prompt_encoder.prompt_tokens.grad, GRADIENT),
    }


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_u8")])
def test_m2f2_det_cosine_tensor(name, run, goldens):
    assert name in run, "a golden tensor that this test does not reproduce"
    assert_within(run[name][0], goldens[name], run[name][1])


def test_m2f2_det_cosine_preprocessing_is_exact(folder, pictures, goldens):
    processor = AutoProcessor.from_pretrained(folder)
    raw = processor(images=pictures, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
    assert torch.equal(raw.to(torch.uint8), goldens["pixel_values_u8"])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_m2f2_det_cosine_detect(attention, folder, inputs, goldens):
    model = AutoModel.from_pretrained(folder, attn_implementation=attention)
    output = model.detect(**inputs)
    assert_within(output.logits, goldens["logits"], LOGITS)
    assert_within(output.fake_probability, goldens["probs"][:, 1], LOGITS)


def test_m2f2_det_cosine_batch_of_one(folder, inputs, goldens):
    model = AutoModel.from_pretrained(folder)
    singles = [model.detect(pixel_values=row[None]).logits for row in inputs["pixel_values"]]
    assert_within(torch.cat(singles), goldens["logits"], LOGITS)
