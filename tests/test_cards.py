"""The card renderer on made-up measurements."""

import json
from pathlib import Path

import jinja2
import pytest
import yaml
from huggingface_hub import ModelCard

from deepfake_detectors.cards import render_model_card, write_model_card

FACTS = Path(__file__).resolve().parent.parent / "hub_cards" / "facts" / "m2f2_det_default.yaml"


@pytest.fixture
def measured():
    entry = {"value": 0.6123, "low": 0.5, "high": 0.7}
    return {
        "results": {
            "parameters": 123456,
            "dataset_config": "c40",
            "split": "test",
            "num_real": 11,
            "num_fake": 13,
            "threshold": 0.5,
            "metrics": {
                "accuracy": dict(entry),
                "auc": {"value": 0.7345, "low": 0.6, "high": 0.8},
                "eer": {"value": 0.4, "low": 0.3, "high": 0.45},
            },
            "per_manipulation": {
                "real": {"count": 11, "accuracy": 0.5, "auc": None},
                "FaceSwap": {"count": 13, "accuracy": 0.75, "auc": 0.81, "auc_interval": {"low": 0.7, "high": 0.9}},
            },
            "bootstrap": {"level": 0.95, "resamples": 100, "seed": 5},
            "versions": {"torch": "9.9"},
        },
        "validation": {
            "train_pictures": 77,
            "steps": 400,
            "best_step": 350,
            "seed": 0,
            "train_seconds": 600.0,
            "cpu_threads": 1,
            "metrics": {"num_real": 7, "num_fake": 8, "accuracy": 0.61, "auc": 0.66, "eer": 0.38},
        },
        "config": {"operating_points": {"eer": 0.512}},
    }


@pytest.fixture
def facts():
    return yaml.safe_load(FACTS.read_text(encoding="utf-8"))


def test_numbers_come_from_the_measurements(facts, measured):
    card = render_model_card(facts, **measured)
    assert "| AUC | 0.735 | 0.600 to 0.800 |" in card or "| AUC | 0.734 | 0.600 to 0.800 |" in card
    assert "| FaceSwap | 13 | 0.750 | 0.810 | 0.700 to 0.900 |" in card
    assert "| real | 11 | 0.500 |  |  |" in card
    assert "`eer` 0.512" in card
    assert "123,456 parameters" in card
    assert "10 minutes" in card
    assert "wrong on 9 of 24 test pictures" in card


def test_header_holds_a_model_index(facts, measured):
    data = ModelCard(render_model_card(facts, **measured)).data
    assert data.license == "other"
    assert data.license_name == facts["license_name"]
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "accuracy": 0.6123,
        "auc": 0.7345,
        "eer": 0.4,
    }


def test_undefined_metrics_are_said_to_be(facts, measured):
    measured["results"]["metrics"]["auc"] = {"value": None, "low": None, "high": None}
    card = render_model_card(facts, **measured)
    assert "| AUC | undefined |  |" in card
    assert "auc" not in {result.metric_type for result in ModelCard(card).data.eval_results}


def test_no_placeholder_is_left(facts, measured):
    card = render_model_card(facts, **measured)
    assert "{{" not in card
    assert "{%" not in card
    assert "None" not in card


@pytest.mark.parametrize(("source", "key"), [("results", "num_fake"), ("validation", "best_step"), ("config", None)])
def test_missing_measurement_is_an_error(facts, measured, source, key):
    if key is None:
        measured[source] = {}
    else:
        del measured[source][key]
    with pytest.raises(jinja2.UndefinedError, match=key or "operating_points"):
        render_model_card(facts, **measured)


def test_folder_without_results(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(FileNotFoundError, match=r"results\.json is missing.*evaluate_classifier"):
        write_model_card(tmp_path, FACTS)
