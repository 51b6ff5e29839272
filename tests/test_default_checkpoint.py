"""The embedded default: complete, small, and as good as its card says."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from real_data import needs_real_data
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageClassification, AutoProcessor, pipeline

import deepfake_detectors
from deepfake_detectors import default_checkpoint
from deepfake_detectors.cards import render_model_card
from deepfake_detectors.default_checkpoint import LICENSE_NOTICE, default_checkpoint_path
from deepfake_detectors.evaluation.evaluate_classifier import EvaluationArguments, evaluate_classifier

ROOT = Path(__file__).resolve().parent.parent
FOLDER = default_checkpoint_path()


def read(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_size_limits():
    model = AutoModel.from_pretrained(FOLDER)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 6_000_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= 12_000_000


def test_weights_are_finite_and_trained():
    weights = load_file(FOLDER / "model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    name = "detector.encoder.plane_mean"
    assert weights[name].abs().sum() > 0, "the standardisation was never fitted"


def test_loads_by_every_door():
    expected = AutoModel.from_pretrained(FOLDER)
    for door in (deepfake_detectors.AutoModelForDeepfakeDetection, AutoModelForImageClassification):
        assert type(door.from_pretrained(FOLDER)) is type(expected)
    size = AutoProcessor.from_pretrained(FOLDER).image_processor.crop_size
    assert (size["height"], size["width"]) == (expected.config.encoder_config["image_size"],) * 2


def test_pipeline_without_a_model_uses_it(tmp_path):
    from pictures import random_pictures

    pictures = random_pictures(2)
    found = deepfake_detectors.pipeline("deepfake-detection")(pictures)
    named = pipeline("deepfake-detection", model=str(FOLDER))(pictures)
    assert [row["fake_probability"] for row in found] == [row["fake_probability"] for row in named]


def test_calibration_and_operating_point_come_from_validation():
    config, validation = read("config.json"), read("validation.json")
    assert config["calibration"]["scale"] > 0
    assert config["operating_points"]["eer"] == validation["metrics"]["eer_threshold"]


def test_card_is_what_the_files_give():
    """Nobody edited the card, the results or the facts alone."""
    facts = yaml.safe_load((ROOT / "hub_cards" / "facts" / "m2f2_det_default.yaml").read_text(encoding="utf-8"))
    expected = render_model_card(facts, read("results.json"), read("validation.json"), read("config.json"))
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == expected


def test_model_index_equals_results():
    data = ModelCard.load(FOLDER / "README.md").data
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {name: entry["value"] for name, entry in read("results.json")["metrics"].items()}


def test_results_are_of_the_official_test_split():
    results = read("results.json")
    assert (results["dataset_config"], results["split"]) == ("c40", "test")
    assert (results["num_real"], results["num_fake"]) == (72, 72)


def test_terms_lie_beside_the_weights():
    text = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    for word in ("non-commercial", "FaceForensics++", "DD-VQA", "M2F2-Det", "MIT License"):
        assert word in text
    assert "non-commercial research only" in LICENSE_NOTICE
    card = ModelCard.load(FOLDER / "README.md")
    assert LICENSE_NOTICE in card.text
    assert (FOLDER / card.data.license_link).is_file()


def test_missing_weights_are_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(default_checkpoint, "files", lambda _: tmp_path)
    with pytest.raises(FileNotFoundError, match="built without its default weights"):
        default_checkpoint_path()


@needs_real_data
def test_measured_again_on_the_test_pictures(tmp_path):
    again = evaluate_classifier(
        EvaluationArguments(
            model=str(FOLDER), dataset_config="c40", output=str(tmp_path / "results.json"), resamples=20
        )
    )
    stored = read("results.json")
    for name, entry in stored["metrics"].items():
        # One picture that changes sides moves the accuracy by 1/144.
        assert again["metrics"][name]["value"] == pytest.approx(entry["value"], abs=0.0071), name
    assert again["metrics"]["auc"]["value"] >= 0.65
    assert again["per_manipulation"].keys() == stored["per_manipulation"].keys()


def test_stock_image_classification_gives_the_same_probability():
    """The calibration lies in the weights, so there is one P(fake) whichever pipeline asks."""
    picture = str(ROOT / "examples" / "pictures" / "real_astronaut.jpg")
    rows = pipeline("image-classification", model=str(FOLDER))(picture)
    ours = deepfake_detectors.pipeline()(picture)["fake_probability"]
    assert {row["label"]: row["score"] for row in rows}["fake"] == pytest.approx(ours, abs=1e-6)
