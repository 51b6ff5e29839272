"""The published verdict rule on the official truth table."""

import json

import pytest

from deepfake_detectors.modeling.verdict_parsing import parse_fakevlm_verdict
from support.golden_files import golden_folder

LINES = (golden_folder("fakevlm") / "verdict_cases.jsonl").read_text().splitlines()
CASES = [json.loads(line) for line in LINES]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_fakevlm_official_verdict(case):
    assert case["rule"] in ("completion", "full_decode")
    found = parse_fakevlm_verdict(case["text"], "official", holds_prompt=case["rule"] == "full_decode")
    assert found == case["label"]
