"""The card renderer on made-up measurements."""

import json
import re
import shutil
from pathlib import Path

import jinja2
import pytest
import yaml
from huggingface_hub import ModelCard

from deepfake_detectors.checkpoints import built_in_path
from deepfake_detectors.hub.model_cards import render_model_card, write_model_card
from support.hub_server import use_hub

FACTS = Path(__file__).resolve().parents[2] / "hub_cards" / "facts" / "m2f2_det_default.yaml"


@pytest.fixture
def measured():
    entry = {"value": 0.6123, "low": 0.5, "high": 0.7}
    return {
        "results": {
            "protocol": {"name": "corrected", "summary": "Sound.", "metrics": {"auc": "higher"}},
            "inputs": {"set": "ddvqa/c40/test"},
            "defects": {},
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
            "bootstrap": {"level": 0.95, "resamples": 100, "seed": 5, "by": "group"},
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
        "config": {"operating_points": {"eer": 0.512}, "license_notice": "For trying only."},
        "parameters": 123456,
    }


@pytest.fixture
def facts():
    return yaml.safe_load(FACTS.read_text(encoding="utf-8"))


def test_numbers_come_from_the_measurements(facts, measured):
    card = render_model_card(facts, **measured)
    assert "| AUC | 0.735 | 0.600 to 0.800 | higher |" in card or "| AUC | 0.734 | 0.600 to 0.800 | higher |" in card
    assert "95 % bootstrap by group (100 resamples, seed 5)" in card
    assert "| FaceSwap | 13 | 0.750 | 0.810 | 0.700 to 0.900 |" in card
    assert "| real | 11 | 0.500 |  |  |" in card
    assert "`eer` 0.512" in card
    assert "123,456 parameters" in card
    assert "10 minutes" in card
    assert "wrong on 9 of 24 test images" in card


def test_terms_are_those_of_the_config(facts, measured):
    assert "Terms: For trying only." in render_model_card(facts, **measured)


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
    assert "| AUC | undefined |  | higher |" in card
    assert "auc" not in {result.metric_type for result in ModelCard(card).data.eval_results}


def test_no_placeholder_is_left(facts, measured):
    card = render_model_card(facts, **measured)
    assert "{{" not in card
    assert "{%" not in card
    assert "None" not in card


def test_further_answers_beside_the_verdict_are_listed(facts, measured):
    """As of an explaining model: metrics of its texts, each under its name, undefined ones said to be."""
    measured["results"]["explanation"] = {
        "counts": {"answers": 9},
        "metrics": {
            "ROUGE_L": {"value": 0.25, "low": 0.2, "high": 0.3},
            "SPICE": {"value": None, "low": None, "high": None},
            "something_new": {"value": 1.5, "low": None, "high": None},
        },
        "undefined": {"SPICE": "Java is not installed"},
    }
    card = render_model_card(facts, **measured)
    assert "| ROUGE-L | 0.250 | 0.200 to 0.300 | higher |" in card
    assert "| something_new | 1.500 |  |" in card
    assert "SPICE is undefined: Java is not installed." in card
    entries = {result.metric_name: result.metric_value for result in ModelCard(card).data.eval_results}
    assert entries["ROUGE-L (explanation)"] == 0.25 and entries["Accuracy"] == 0.6123
    assert not [name for name in entries if "SPICE" in name]


@pytest.mark.parametrize(("source", "key"), [("results", "versions"), ("validation", "best_step"), ("config", None)])
def test_missing_measurement_is_an_error(facts, measured, source, key):
    if key is None:
        measured[source] = {}
    else:
        del measured[source][key]
    with pytest.raises((jinja2.UndefinedError, KeyError), match=key or "operating_points"):
        render_model_card(facts, **measured)


SECTIONS = ["Use", "Results", "Architecture", "Training", "Reproduce it", "Sources"]


def test_whole_card_of_the_embedded_default(tmp_path, monkeypatch):
    """Rendered anew from facts and measurements, from the first line to the last, and accepted by a Hub."""
    folder = built_in_path("m2f2-det-mini")
    stored = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("results", "validation", "config")}
    facts = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("README.md"))
    assert write_model_card(copy, FACTS).read_text(encoding="utf-8") == card
    assert re.findall(r"^## (.+)$", card, re.MULTILINE) == SECTIONS
    # every fact is on the card, and every line of the card has something to say
    said = " ".join(card.split())
    texts = [facts["title"], facts["summary"], facts["reproduction"], stored["config"]["license_notice"]]
    for key in ("uses", "limits", "architecture", "training", "citations"):
        texts += facts[key]
    for text in [*texts, *facts["commands"].values()]:
        assert " ".join(text.split()) in said
    for dead in ("{{", "}}", "{%", "\n\n\n"):
        assert dead not in card
    assert not re.findall(r"\b(?:None|nan|Undefined|TODO|FIXME|jinja2?|lorem)\b", card)
    # every measured number is on the card, rounded, and unrounded in the index
    for name, entry in stored["results"]["metrics"].items():
        low, high = (entry[side] for side in ("low", "high"))
        interval = "" if low is None else f"{low:.3f} to {high:.3f}"
        assert f"| {entry['value']:.3f} | {interval} |" in card, name
        assert f"value: {entry['value']!r}" in card
    for method, row in stored["results"]["per_manipulation"].items():
        assert f"| {method} | {row['count']} | {row['accuracy']:.3f} |" in card
    with use_hub(monkeypatch, tmp_path) as hub:
        ModelCard(card).validate()
        assert hub.requests == ["POST /api/validate-yaml"]
        with pytest.raises(ValueError, match="license_name"):
            ModelCard(card.replace(f"license_name: {facts['license_name']}\n", "")).validate()


def test_folder_without_results(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(FileNotFoundError, match=r"results\.json"):
        write_model_card(tmp_path, FACTS)
