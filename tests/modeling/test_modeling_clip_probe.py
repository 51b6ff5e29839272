"""CLIP probes: the common checks, named heads, int8 storage, and the ways the ecosystem uses them."""

import copy
import json
import logging

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageClassification, Trainer, TrainingArguments, pipeline

import deepfake_detectors
from deepfake_detectors.modeling.modeling_clip_probe import ClipProbeForDeepfakeDetection, probe_features
from deepfake_detectors.modeling.modeling_clip_probe_storage import ENCODER_FILE, HEADS_FILE, quantize_exactly
from support.detector_tests import DetectorTests, assert_same
from support.pictures import random_pictures
from support.tiny_clip_probe import (
    BAND,
    SIZE,
    clip_probe,
    clip_probe_config,
    clip_probe_processor,
    rounded_to_int8,
    tiny_clip_probe,
)


class TestClipProbe(DetectorTests):
    make_model = staticmethod(clip_probe)
    make_processor = staticmethod(clip_probe_processor)
    always_float32 = (".classifier.weight", ".classifier.bias")


class TestClipProbeFace(DetectorTests):
    make_model = staticmethod(lambda: clip_probe(default_head="face"))
    make_processor = staticmethod(clip_probe_processor)
    always_float32 = (".classifier.weight", ".classifier.bias")

    def inputs_for(self, processor, pictures):
        return processor(images=pictures, return_tensors="pt", head="face")


@pytest.fixture
def pixels():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def picture():
    return random_pictures(1)[0]


# heads


def test_features_are_those_of_the_library_model(pixels):
    model = clip_probe()
    states = model.vision_tower(pixels, output_hidden_states=True).hidden_states
    found = model.features(pixels, "picture")
    expected = torch.cat([states[3][:, 0], states[3][:, 1:].mean(1)], dim=-1)
    assert torch.allclose(found, expected, atol=1e-6)
    expected = (states[2][:, 1:].mean(1) + states[3][:, 1:].mean(1)) / 2
    assert torch.allclose(model.features(pixels, "face"), expected, atol=1e-6)


def test_verdict_is_the_linear_head_on_cut_off_features(pixels):
    model = clip_probe(calibration={"scale": 1.5, "bias": 0.2})
    head = model.heads["picture"]
    with torch.no_grad():
        head.deviation.mul_(0.05)  # so that something is cut off
    standard = (model.features(pixels).double() - head.mean.double()) / head.deviation.double()
    assert standard.abs().max() > 6
    difference = standard.clamp(-6, 6) @ head.classifier.weight[0].double() + head.classifier.bias.double()
    expected = torch.sigmoid(1.5 * difference + 0.2)
    assert torch.allclose(model.detect(pixels).fake_probability.double(), expected, atol=1e-5)


def test_the_embedding_is_clips_own(pixels):
    heads = {"picture": {"features": ["projection"], "clip": None}}
    model = clip_probe(heads=heads)
    assert model.config.feature_size("picture") == 24
    pooled = model.vision_tower(pixels).pooler_output
    assert torch.allclose(model.features(pixels), model.visual_projection(pooled), atol=1e-6)
    assert not any("post_layernorm" in name for name in clip_probe().state_dict())


def test_each_head_has_its_own_calibration(pixels):
    heads = clip_probe_config().heads
    heads["face"] |= {"calibration": {"scale": 2.0, "bias": 1.0}}
    plain, other = clip_probe(), clip_probe(heads=heads)
    assert torch.equal(plain.detect(pixels).logits, other.detect(pixels).logits)
    before, after = (m.detect(pixels, head="face").logits.diff(dim=-1) for m in (plain, other))
    assert torch.allclose(after, 2.0 * before + 1.0, atol=1e-5)


def test_processor_notes_the_head(picture):
    model, processor = clip_probe(), clip_probe_processor()
    inputs = processor(images=picture, head="face", return_tensors="pt")
    assert inputs["head"] == "face"
    assert torch.equal(model.detect(**inputs).logits, model.detect(inputs["pixel_values"], head="face").logits)
    assert not torch.equal(model.detect(**inputs).logits, model.detect(inputs["pixel_values"]).logits)


def test_pipeline_takes_the_head(tmp_path, picture):
    heads = clip_probe_config().heads
    heads["face"] |= {"license_notice": "terms of faces", "operating_points": {"eer": 0.3}}
    folder = tiny_clip_probe(tmp_path, heads=heads, license_notice="terms of pictures", decision_band=BAND)
    detector = deepfake_detectors.pipeline(model=str(folder))
    whole, face = detector(picture), detector(picture, head="face")
    assert (whole["head"], whole["terms"]) == ("picture", "terms of pictures")
    assert (face["head"], face["terms"], face["decision"]) == ("face", "terms of faces", None)
    assert whole["decision"] in ("likely real", "inconclusive", "likely fake")
    inputs = clip_probe_processor()(images=picture, head="face", return_tensors="pt")
    expected = AutoModel.from_pretrained(folder).detect(**inputs).fake_probability.item()
    assert face["fake_probability"] == pytest.approx(expected, abs=1e-6)
    # in batches, after construction, and with an operating point of that head
    faces = deepfake_detectors.pipeline(model=str(folder), head="face")
    assert faces(picture, threshold="eer")["threshold"] == 0.3
    rows = faces([picture, picture, "missing.jpg"], batch_size=3, on_error="record")
    assert [row["fake_probability"] for row in rows[:2]] == pytest.approx([face["fake_probability"]] * 2, abs=1e-6)
    assert "missing.jpg" in rows[2]["error"]
    with pytest.raises(ValueError, match="eer"):
        detector(picture, threshold="eer")


def test_unknown_heads_are_refused(tmp_path, pixels, picture):
    with pytest.raises(ValueError, match=r"'nose'.*'face', 'picture'"):
        clip_probe().detect(pixels, head="nose")
    with pytest.raises(ValueError, match=r"'nose'.*'face', 'picture'"):
        clip_probe_processor()(images=picture, head="nose")
    detector = deepfake_detectors.pipeline(model=str(tiny_clip_probe(tmp_path)))
    with pytest.raises(ValueError, match=r"'nose'.*'face', 'picture'"):
        detector(picture, head="nose")


def test_models_without_named_heads_refuse_head(picture):
    with pytest.raises(ValueError, match=r"'face'.*M2F2DetFor.*ClipProbeForDeepfakeDetection"):
        deepfake_detectors.pipeline(model="m2f2-det-mini")(picture, head="face")


def test_explaining_is_refused_with_who_can(tmp_path, picture):
    detector = deepfake_detectors.pipeline(model=str(tiny_clip_probe(tmp_path)))
    with pytest.raises(ValueError, match=r"FakeVLMForDeepfakeDetection.*m2f2-det-mini"):
        detector(picture, explain=True)


def test_pictures_of_another_size_are_refused(pixels):
    with pytest.raises(ValueError, match=r"\(3, 3, 42, 42\).*56"):
        clip_probe().detect(pixels[..., :42, :42])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"heads": {}}, "heads"),
        ({"heads": {"Face": {}}}, "'Face'"),
        ({"heads": {"face": {"eyes": 2}}}, "eyes"),
        ({"heads": {"face": {"features": ["nose"]}}}, "nose"),
        ({"heads": {"face": {"layers": [4]}}}, r"\[4\]"),
        ({"heads": {"face": {"features": ["projection"], "layers": [2]}}}, "projection"),
        ({"heads": {"face": {"clip": 0}}}, "clip"),
        ({"heads": {"face": {"subject": "cats"}}}, "cats"),
        ({"heads": {"face": {"calibration": {"scale": 1.0, "bias": 0.0}}}}, "calibration"),
        ({"default_head": "nose"}, "nose"),
        ({"encoder_storage": "int4"}, "int4"),
        ({"decision_band": {**BAND, "low": 0.8}}, "0.8"),
        ({"decision_band": {"low": 0.1, "high": 0.9}}, "decision_band"),
        ({"decision_band": {**BAND, "coverage": 2.0}}, "coverage"),
    ],
)
def test_configs_that_cannot_be(fields, named):
    with pytest.raises(ValueError, match=named):
        clip_probe_config(**fields)


# storage


@pytest.fixture
def stored(tmp_path):
    model = rounded_to_int8(clip_probe())
    model.save_pretrained(tmp_path)
    return model, tmp_path


def test_int8_storage_gives_the_same_model(stored, pixels):
    model, folder = stored
    tensors = load_file(folder / ENCODER_FILE)
    integers = [name for name, tensor in tensors.items() if tensor.dtype == torch.int8]
    assert len(integers) == 6 * 3
    assert all(tensors[f"{name}_scale"].shape == (len(tensors[name]), 1) for name in integers)
    loaded = AutoModel.from_pretrained(folder)
    assert all(torch.equal(found, model.state_dict()[name]) for name, found in loaded.state_dict().items())
    assert all(type(m) is torch.nn.Linear for name, m in loaded.named_modules() if name.endswith(("fc1", "q_proj")))
    assert torch.allclose(loaded.detect(pixels).logits, model.detect(pixels).logits, atol=1e-6)
    assert loaded.name_or_path == str(folder)


def test_int8_storage_is_stable(stored, tmp_path_factory):
    _, folder = stored
    again = tmp_path_factory.mktemp("again")
    AutoModel.from_pretrained(folder).save_pretrained(again)
    for name in (ENCODER_FILE, HEADS_FILE, "model.safetensors.index.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_refitting_a_head_leaves_the_encoder_file(stored, tmp_path_factory):
    model, folder = stored
    with torch.no_grad():
        model.heads["face"].classifier.bias.add_(1.0)
    again = tmp_path_factory.mktemp("again")
    model.save_pretrained(again)
    assert (again / ENCODER_FILE).read_bytes() == (folder / ENCODER_FILE).read_bytes()
    assert (again / HEADS_FILE).read_bytes() != (folder / HEADS_FILE).read_bytes()


def test_a_trained_encoder_is_stored_in_floats(stored, tmp_path_factory, pixels):
    model, _ = stored
    with torch.no_grad():
        model.vision_tower.encoder.layers[0].mlp.fc1.weight.mul_(1.0 + 1e-3 * torch.rand(48, 32))
    again = tmp_path_factory.mktemp("floats")
    model.save_pretrained(again)
    assert json.loads((again / "config.json").read_text())["encoder_storage"] == "float"
    assert_same(AutoModel.from_pretrained(again), model, {"pixel_values": pixels})


def test_int8_loads_in_bfloat16_with_float32_heads(stored, pixels):
    model, folder = stored
    half = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert {weight.dtype for weight in half.heads.state_dict().values()} == {torch.float32}
    assert torch.allclose(half.detect(pixels).logits, model.detect(pixels).logits, atol=0.1)


def test_quantising_is_exact_or_refused():
    torch.manual_seed(0)
    values = torch.randint(-127, 128, (40, 16)).float()
    values[:, 0] = 127
    scale = torch.rand(40, 1) * torch.logspace(-6, 2, 40)[:, None]
    values[7] = 0  # a channel of zeros
    found, scales = quantize_exactly(values * scale)
    assert torch.equal(found.float() * scales, values * scale)
    assert quantize_exactly(torch.randn(4, 16)) is None


@pytest.mark.parametrize("lost", ["weight", "weight_scale"])
def test_half_an_int8_matrix_is_refused(stored, lost):
    _, folder = stored
    tensors = load_file(folder / ENCODER_FILE)
    del tensors[f"vision_tower.encoder.layers.1.mlp.fc2.{lost}"]
    save_file(tensors, folder / ENCODER_FILE)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.fc2\.weight"):
        AutoModel.from_pretrained(folder)


def test_an_incomplete_int8_folder_is_refused_by_name(stored):
    _, folder = stored
    tensors = load_file(folder / HEADS_FILE)
    del tensors["heads.face.classifier.bias"]
    save_file(tensors, folder / HEADS_FILE)
    with pytest.raises(ValueError, match=r"heads\.face\.classifier\.bias") as caught:
        AutoModel.from_pretrained(folder)
    assert str(folder) in str(caught.value)


def test_an_index_cannot_name_files_elsewhere(stored):
    _, folder = stored
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["stranger"] = "../stranger.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="stranger"):
        AutoModel.from_pretrained(folder)


# the ecosystem


def test_stock_image_classification_pipeline(tmp_path, picture):
    folder = tiny_clip_probe(tmp_path, calibration={"scale": 3.0, "bias": -1.0})
    assert isinstance(AutoModelForImageClassification.from_pretrained(folder), ClipProbeForDeepfakeDetection)
    rows = pipeline("image-classification", model=str(folder))(picture)
    ours = deepfake_detectors.pipeline(model=str(folder))(picture)["fake_probability"]
    assert {row["label"]: row["score"] for row in rows}["fake"] == pytest.approx(ours, abs=1e-6)


def test_stock_trainer_trains_and_evaluates_a_head(tmp_path):
    model, processor = clip_probe(), clip_probe_processor()
    model.freeze_encoder()
    model.freeze_unused()
    tower = copy.deepcopy(model.vision_tower.state_dict())
    before = copy.deepcopy(model.heads.state_dict())
    rows = [
        {"pixel_values": processor(images=item, return_tensors="pt")["pixel_values"][0], "labels": number % 2}
        for number, item in enumerate(random_pictures(8))
    ]
    arguments = TrainingArguments(
        tmp_path, max_steps=12, learning_rate=0.05, use_cpu=True, report_to="none", save_strategy="no"
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
    )
    first = trainer.evaluate()
    trainer.train()
    last = trainer.evaluate()
    assert last["eval_loss"] < first["eval_loss"]
    assert 0 <= last["eval_accuracy"] <= 1
    after = model.heads.state_dict()
    assert not torch.equal(after["picture.classifier.weight"], before["picture.classifier.weight"])
    assert torch.equal(after["face.classifier.weight"], before["face.classifier.weight"])
    assert all(torch.equal(weight, tower[name]) for name, weight in model.vision_tower.state_dict().items())


def test_lora_on_the_tower(tmp_path, pixels):
    folder = tmp_path / "base"
    rounded_to_int8(clip_probe()).save_pretrained(folder)
    base = AutoModel.from_pretrained(folder)
    plain = base.detect(pixels).logits
    config = LoraConfig(r=2, target_modules=r".*vision_tower.*\.(q_proj|v_proj)", modules_to_save=["classifier"])
    tuned = get_peft_model(base, config)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    tuned.save_pretrained(tmp_path / "lora")
    expected = tuned(pixels).logits
    assert not torch.allclose(expected, plain, atol=1e-3)
    loaded = AutoModel.from_pretrained(tmp_path / "lora")
    assert torch.allclose(loaded.detect(pixels).logits, expected, atol=1e-5)


def test_export_with_any_batch(pixels):
    model = clip_probe()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (pixels,), dynamic_shapes={"pixel_values": {0: batch}}).module()
    for count in (1, 2, 3):
        assert torch.allclose(exported(pixels[:count]).logits, model(pixels[:count]).logits, atol=1e-6)


@pytest.mark.slow
def test_compiles_without_a_graph_break(pixels):
    model = clip_probe()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.allclose(compiled(pixels).logits, model(pixels).logits, atol=1e-5)


def test_gradient_checkpointing_keeps_the_loss(pixels):
    model = clip_probe().train()
    labels = torch.tensor([0, 1, 0])
    plain = model(pixels, labels=labels).loss
    model.gradient_checkpointing_enable()
    assert torch.allclose(model(pixels, labels=labels).loss, plain)


def test_only_the_layers_that_are_read_are_computed(pixels):
    model, calls = clip_probe(heads={"early": {"layers": [1]}}), []
    for layer in model.vision_tower.encoder.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    model.detect(pixels)
    assert len(calls) == 1


def test_features_join_in_the_order_named():
    state = torch.from_numpy(np.arange(24, dtype=np.float32).reshape(1, 3, 8))
    found = probe_features({0: state}, ["patch_mean", "class_token"], [0], None)
    assert torch.equal(found, torch.cat([state[:, 1:].mean(1), state[:, 0]], dim=-1))


def test_terms_of_a_head_are_logged(tmp_path, picture, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    heads = clip_probe_config().heads
    heads["face"] |= {"license_notice": "terms of faces, logged"}
    detector = deepfake_detectors.pipeline(model=str(tiny_clip_probe(tmp_path, heads=heads)))
    assert "terms of faces, logged" not in caplog.text
    detector(picture, head="face")
    assert "terms of faces, logged" in caplog.text
