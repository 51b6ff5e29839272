"""The built-in explaining example: complete, small, as good as its card says, and able to explain without a network."""

import json
import re
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageClassification, AutoProcessor, pipeline

import deepfake_detectors
from deepfake_detectors import checkpoints
from deepfake_detectors.checkpoints import built_in_path
from deepfake_detectors.dataset_scripts._ddvqa_questions import stated_question
from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.files import weights_digest
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from support.pictures import random_pictures
from support.real_data import needs_real_data, real_data

ROOT = Path(__file__).resolve().parents[2]
FOLDER = built_in_path("m2f2-det-mini")
PICTURES = [str(path) for path in sorted((ROOT / "examples" / "pictures").glob("*.jpg"))]


def read(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_size_limits():
    model = AutoModel.from_pretrained(FOLDER)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 6_000_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 20_000_000


def test_nothing_but_weights_settings_and_texts():
    assert {path.suffix for path in FOLDER.iterdir() if path.is_file()} <= {
        *(".json", ".safetensors", ".jinja", ".md", ".py"),
        "",  # LICENSE
    }


def test_no_file_names_a_folder_of_the_machine_that_trained_it():
    texts = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir() if path.suffix == ".json"}
    assert not [name for name, text in texts.items() if re.search(r'"(?:_name_or_path|model_name_or_path)"', text)]


def test_weights_are_finite_and_trained():
    weights = load_file(FOLDER / "model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    name = "model.detector.encoder.plane_mean"
    assert weights[name].abs().sum() > 0, "the standardisation was never fitted"


def test_loads_by_every_door():
    whole = AutoModel.from_pretrained(FOLDER)
    assert type(whole) is M2F2DetForConditionalGeneration
    for door in (deepfake_detectors.AutoModelForDeepfakeDetection, AutoModelForImageClassification):
        assert type(door.from_pretrained(FOLDER)) is M2F2DetForDeepfakeDetection
    size = AutoProcessor.from_pretrained(FOLDER).image_processor.crop_size
    assert (size["height"], size["width"]) == (whole.config.encoder_config["image_size"],) * 2


def test_the_verdict_is_the_detectors_alone():
    """Whatever class reads the folder; the language model has no part in it."""
    pixels = AutoProcessor.from_pretrained(FOLDER)(images=random_pictures(3))["pixel_values"]
    alone = M2F2DetForDeepfakeDetection.from_pretrained(FOLDER).eval()
    whole = M2F2DetForConditionalGeneration.from_pretrained(FOLDER).eval()
    assert torch.equal(whole.detect(pixels).logits, alone.detect(pixels).logits)


@pytest.fixture(scope="module")
def explainer():
    return deepfake_detectors.pipeline(model="m2f2-det-mini", explain=True)


@pytest.fixture(scope="module")
def explained(explainer):
    """Rows of all example pictures in one batch, while no connection can be made."""

    def refuse(*_):
        raise OSError("no network in this test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        return explainer(PICTURES, batch_size=len(PICTURES))


def test_explains_in_words_without_a_network(explained):
    for row in explained:
        words = re.findall(r"[a-z]+", row["explanation"].lower())
        assert len(words) >= 4
        assert set(words) & {"person", "image", "skin", "eyes", "nose", "mouth", "face", "eyebrows"}
        assert not re.search(r"<.*>|USER:|ASSISTANT:", row["explanation"])
        assert row["explanation"].rstrip().endswith("."), "cut off, or never ended"
        assert row["explanation_verdict"] in ("real", "fake", None)


def test_rows_are_json(explained):
    assert json.loads(json.dumps(explained)) == explained


def test_explanations_do_not_depend_on_the_batch(explainer, explained):
    alone = [explainer(picture) for picture in PICTURES]
    assert [row["explanation"] for row in alone] == [row["explanation"] for row in explained]


def test_explanation_follows_the_verdict_it_is_asked_about(explainer):
    """The same picture, called fake and called real."""
    fake, real = (explainer(PICTURES[0], threshold=threshold) for threshold in (0.0, 1.0))
    assert (fake["label"], real["label"]) == ("fake", "real")
    assert fake["explanation"] != real["explanation"]


def test_questions_are_answered(explainer):
    for part in ("nose", "mouth"):
        question = stated_question(f"Does the person's {part} look real/fake?", "real", "")
        assert part in explainer(PICTURES[0], question=question)["explanation"]


def test_it_has_a_name():
    pictures = random_pictures(2)
    found = deepfake_detectors.pipeline(model="m2f2-det-mini")(pictures)
    named = pipeline("deepfake-detection", model=str(FOLDER))(pictures)
    assert [row["fake_probability"] for row in found] == [row["fake_probability"] for row in named]


def test_calibration_and_operating_point_come_from_validation():
    config, validation = read("config.json"), read("validation.json")
    assert config["calibration"]["scale"] > 0
    assert config["operating_points"]["eer"] == validation["metrics"]["eer_threshold"]


def test_model_index_equals_results():
    data = ModelCard.load(FOLDER / "README.md").data
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {name: entry["value"] for name, entry in read("results.json")["metrics"].items()}


def test_results_are_of_the_official_test_split():
    results = read("results.json")
    assert results["inputs"]["set"] == "ddvqa/c40/test" and results["inputs"]["unreadable"] == 0
    assert (results["num_real"], results["num_fake"]) == (72, 72)
    assert results["weights"] == weights_digest(FOLDER)


def test_explanations_were_scored_on_the_official_questions_beside_the_published_answers():
    scores = read("explanations.json")
    for column in ("model", "official", "control"):
        assert scores["explanation"][column]["counts"] == {"explanations": 1070, "pictures": 144, "empty": 0}
    # What the official scorer prints for the published answers.
    official = json.loads((ROOT / "tests/goldens/m2f2_det/ddvqa_official_eval.json").read_text(encoding="utf-8"))
    found = scores["explanation"]["official"]["metrics"]
    assert found["CIDEr"]["value"] == pytest.approx(official["explanation"]["CIDEr"], abs=1e-6)


def test_terms_lie_beside_the_weights():
    text = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    for word in ("non-commercial", "FaceForensics++", "DD-VQA", "M2F2-Det", "MIT License"):
        assert word in text
    notice = read("config.json")["license_notice"]
    assert "non-commercial research only" in notice
    card = ModelCard.load(FOLDER / "README.md")
    assert notice in card.text
    assert (FOLDER / card.data.license_link).is_file()


def test_missing_weights_are_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "files", lambda _: tmp_path)
    with pytest.raises(FileNotFoundError, match="m2f2_det_mini"):
        built_in_path("m2f2-det-mini")


@needs_real_data
def test_measured_again_on_the_test_pictures():
    again = evaluate("m2f2-det-mini", dataset="ddvqa", dataset_config="c40", resamples=20).content
    stored = read("results.json")
    for name, entry in stored["metrics"].items():
        # One picture that changes sides moves the accuracy by 1/144.
        assert again["metrics"][name]["value"] == pytest.approx(entry["value"], abs=0.0071), name
    assert again["metrics"]["auc"]["value"] >= 0.65
    assert again["per_manipulation"].keys() == stored["per_manipulation"].keys()


@needs_real_data
def test_examples_of_the_card_are_answered_again(explainer):
    for row in read("explanations.json")["examples"]:
        picture = real_data("ddvqa") / "images_c40" / "test" / f"{row['key'].rsplit('_', 1)[0]}.jpg"
        assert explainer(str(picture), question=row["question"])["explanation"] == row["answer"]


def test_stock_image_classification_gives_the_same_probability():
    """The calibration lies in the weights, so there is one P(fake) whichever pipeline asks."""
    picture = str(ROOT / "examples" / "pictures" / "real_astronaut.jpg")
    rows = pipeline("image-classification", model=str(FOLDER))(picture)
    ours = deepfake_detectors.pipeline(model="m2f2-det-mini")(picture)["fake_probability"]
    assert {row["label"]: row["score"] for row in rows}["fake"] == pytest.approx(ours, abs=1e-6)
