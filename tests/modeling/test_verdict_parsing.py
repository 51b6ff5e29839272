"""The strict rule and the policies for answers that say nothing; the official rule has its own truth table."""

import random

import pytest

from deepfake_detectors.modeling.verdict_parsing import parse_fakevlm_verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("\nThis is a fake image. It looks real at first.", "fake"),
        ("Edges bend. Light is odd. This is a REAL image", "real"),
        ("This is an real image", "real"),
        ("The image looks unrealistic. It is fake.", "fake"),
        ("Surreal colours.", "undetermined"),
        ("It is fake, not real.", "undetermined"),
        ("This is a fake image. This is a real image.", "undetermined"),
        ("", "undetermined"),
    ],
)
def test_strict(text, verdict):
    assert parse_fakevlm_verdict(text, "strict") == verdict


def test_policies(monkeypatch):
    assert parse_fakevlm_verdict("Who knows", undetermined="keep") == "undetermined"
    assert parse_fakevlm_verdict("Who knows", undetermined="fake") == "fake"
    random.seed(0)
    drawn = {parse_fakevlm_verdict("Who knows", undetermined="random") for _ in range(40)}
    assert drawn == {"real", "fake"}
    with pytest.raises(ValueError, match="Who knows"):
        parse_fakevlm_verdict("Who knows", undetermined="error")
    assert parse_fakevlm_verdict("A real one.", undetermined="error") == "real"


def test_errors_name_what_is_allowed():
    with pytest.raises(ValueError, match="'official', 'strict'"):
        parse_fakevlm_verdict("", "word")
    with pytest.raises(ValueError, match="'keep', 'error', 'fake', 'random'"):
        parse_fakevlm_verdict("", undetermined="guess")
