"""Explanations that always say the same are found out, whatever ROUGE and CIDEr say of them."""

import json

import numpy as np
import pytest

from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.evaluation.explanation_checks import REGIONS, check_explanations, named_regions
from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.predictions import Prediction

SETTINGS = Settings(resamples=20)


def rows_of(texts, label=None):
    """Each fake shares its group with a real picture."""
    return [
        Prediction(str(place), label or ("real", "fake")[place % 2], text=text, group_id=f"g{place // 2}")
        for place, text in enumerate(texts)
    ]


def values(rows, references=None):
    return {name: entry["value"] for name, entry in check_explanations(rows, references, SETTINGS)["metrics"].items()}


def test_a_constant_answer():
    found = check_explanations(rows_of(["It looks Fake."] * 6), None, SETTINGS)
    assert found["commonest"] == "it looks fake"
    measured = {name: entry["value"] for name, entry in found["metrics"].items()}
    assert measured == {"commonest_answer": 1.0, "distinct_answers": pytest.approx(1 / 6), "same_answer_as_twin": 1.0}


def test_answers_of_their_own():
    found = values(rows_of([f"answer {place}" for place in range(6)]))
    assert found == {"commonest_answer": pytest.approx(1 / 6), "distinct_answers": 1.0, "same_answer_as_twin": 0.0}


def test_half_of_the_twins():
    assert values(rows_of(["a", "a", "b", "c"]))["same_answer_as_twin"] == 0.5
    alone = check_explanations(rows_of(["a", "b"], "fake"), None, SETTINGS)
    assert alone["metrics"]["same_answer_as_twin"]["value"] is None and "same_answer_as_twin" in alone["undefined"]


def test_the_control_reaches_what_phrases_reach():
    names = list(REGIONS)[:8]
    specific = [f"the {name} of this face are strange" for name in names]
    references = {str(place): [text] for place, text in enumerate(specific)}
    looks = values(rows_of(specific), references)
    assert looks["region_agreement"] == 1.0
    assert looks["region_agreement_of_control"] == 0.0  # every region is named by one picture alone
    assert 0.5 < looks["ROUGE_L_of_control"] < 1.0  # the rest of the sentence always fits
    # A detector that does not look loses nothing by answering for other pictures.
    constant = values(rows_of([specific[0]] * 8), references)
    assert constant["region_agreement_of_control"] == constant["region_agreement"] == pytest.approx(1 / 8)


def test_regions_are_words():
    assert named_regions("The eye-brows and LIPS; early nightfall.") >= {"mouth"}
    assert "ears" not in named_regions("early years") and "light" not in named_regions("slightly")
    assert named_regions("teeth are blurred at the hairline") == {"teeth", "hair"}


def test_no_text_is_refused():
    with pytest.raises(ValueError, match="no text"):
        check_explanations([Prediction("a", "real")], None, SETTINGS)


def test_evaluate_puts_them_beside_the_scores(tmp_path):
    generator = np.random.default_rng(0)
    texts = ["The eyes look fake.", "The mouth looks fake."]
    rows = rows_of([texts[int(generator.integers(2))] for _ in range(10)])
    (tmp_path / "p.jsonl").write_text(
        "".join(
            json.dumps({"id": row.id, "label": row.label, "text": row.text, "group_id": row.group_id}) + "\n"
            for row in rows
        )
    )
    (tmp_path / "r.jsonl").write_text(
        "".join(json.dumps({row.id: {"answer": ["The eyes look fake."]}}) + "\n" for row in rows)
    )
    results = evaluate(predictions=tmp_path / "p.jsonl", references=tmp_path / "r.jsonl", resamples=20)
    assert {"ROUGE_L_of_control", "commonest_answer"} <= set(results.content["explanation_checks"]["metrics"])
    results.save(tmp_path / "report")
    assert "## Explanation checks" in (tmp_path / "report" / "report.md").read_text()
