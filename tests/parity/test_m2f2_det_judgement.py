"""The published judgement rule on the published answers (needs the real data for the answers)."""

import json
from pathlib import Path

import pytest

from deepfake_detectors.modeling.verdict_parsing import parse_verdict
from support.golden_files import golden_folder
from support.real_data import needs_real_data, real_data

pytestmark = needs_real_data
EXPECTED = json.loads((golden_folder("m2f2_det") / "ddvqa_official_eval.json").read_text())["judgement"]


@pytest.fixture(scope="module")
def answers():
    path = real_data("ddvqa") / "predictions" / Path(EXPECTED["file"]).name
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # type 5 is the original video
    return [(row["text"], "real" if Path(row["image"]).name.startswith("5_") else "fake") for row in rows]


def test_m2f2_det_official_parser_gives_the_published_confusion(answers):
    outcomes = [(parse_verdict(text, "official"), truth) for text, truth in answers]
    found = {
        "tp": outcomes.count(("fake", "fake")),
        "fp": outcomes.count(("fake", "real")),
        "fn": outcomes.count(("real", "fake")),
        "tn": outcomes.count(("real", "real")),
    }
    assert found == EXPECTED["confusion"]
    assert len(outcomes) == EXPECTED["n"]


def test_m2f2_det_word_parser(answers):
    expected = EXPECTED["whole_word_parse_instead"]
    verdicts = [(parse_verdict(text, "word"), truth) for text, truth in answers]
    assert sum(verdict == truth for verdict, truth in verdicts) == expected["correct"]
    assert sum(verdict is None for verdict, _ in verdicts) == expected["unparsed"]
