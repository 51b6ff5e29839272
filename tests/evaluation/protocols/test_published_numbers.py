"""What the papers print follows from their own tables by the protocols' arithmetic."""

from importlib.resources import files

import pytest
import yaml

from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.protocols import evaluate_rows, get_protocol

SETTINGS = Settings(resamples=0)


def facts_of(family):
    path = files("deepfake_detectors.hub_cards").joinpath(f"facts/published_{family}.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_fakevlm_numbers_follow_from_the_confusion_with_real_as_positive():
    facts = facts_of("fakevlm")
    counts = facts["confusion"]
    pairs = [("real", "real")] * counts["tp"] + [("real", "fake")] * counts["fn"]
    pairs += [("fake", "real")] * counts["fp"] + [("fake", "fake")] * counts["tn"]
    rows = [Prediction(str(n), truth, text=f"This is a {said} image.") for n, (truth, said) in enumerate(pairs)]
    protocol = get_protocol("paper:fakevlm")
    metrics = evaluate_rows(rows, protocol, SETTINGS)["metrics"]
    assert protocol.positive_class == facts["positive_class"]
    assert round(100 * metrics["accuracy"]["value"], 1) == facts["published"]["accuracy"]
    assert round(100 * metrics["f1"]["value"], 1) == facts["published"]["f1"]
    # The other polarity does not give the printed number, which is how the polarity is known.
    assert round(100 * metrics["f1_fake"]["value"], 1) != facts["published"]["f1"]
    assert round(100 * metrics["f1_macro"]["value"], 1) != facts["published"]["f1"]


@pytest.mark.parametrize("checkpoint", ["original", "with_lama"])
def test_antifakeprompt_average_is_the_plain_mean_of_its_sets(checkpoint):
    facts = facts_of("antifakeprompt")
    rows, size = [], facts["pictures_per_set"]
    for entry in facts["sets"]:
        right = round(entry[checkpoint] * size / 100)
        wrong_score = 0.0 if entry["class"] == "fake" else 1.0
        for number in range(size):
            score = 1.0 - wrong_score if number < right else wrong_score
            rows.append(Prediction(f"{entry['name']}/{number}", entry["class"], score, category=entry["name"]))
    results = evaluate_rows(rows, get_protocol("paper:antifakeprompt"), SETTINGS)
    average = results["metrics"]["average"]["value"]
    assert round(100 * average, 2) == pytest.approx(facts["published_average"][checkpoint])
    held_out = [results["per_set"][entry["name"]]["accuracy"] for entry in facts["sets"] if not entry["held_in"]]
    if checkpoint in facts["published_held_out_average"]:
        expected = facts["published_held_out_average"][checkpoint]
        assert round(100 * sum(held_out) / len(held_out), 2) == pytest.approx(expected)
