import sys

import numpy as np
import pytest

from deepfake_detectors.evaluation.calibration import calibrated_probability, fit_platt
from deepfake_detectors.evaluation.metrics import (
    accuracy,
    auc,
    category_table,
    detection_metrics,
    equal_error_rate,
    manipulation_table,
)

LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
SCORES = [0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9]


def test_values_counted_by_hand():
    result = detection_metrics(LABELS, SCORES)
    assert (result.num_real, result.num_fake) == (4, 4)
    assert result.accuracy == 6 / 8
    assert result.auc == 15 / 16  # one of the sixteen real-fake pairs is the wrong way round
    assert result.eer == 1 / 4
    assert result.undefined == {}


def test_categories_hold_both_classes():
    table = category_table(LABELS, SCORES, ["b", "b", "a", "a", "a", "a", "c", "c"])
    assert list(table) == ["a", "b", "c"]
    assert table["a"] == {"count": 4, "real": 2, "fake": 2, "accuracy": 2 / 4, "auc": 3 / 4}
    assert table["b"] == {"count": 2, "real": 2, "fake": 0, "accuracy": 1.0, "auc": None}
    with pytest.raises(ValueError, match="one name per picture"):
        category_table(LABELS, SCORES, ["a"])


def test_threshold_counts_as_fake():
    assert accuracy([0, 1], [0.4, 0.5], threshold=0.5) == 1.0
    assert accuracy([0, 1], [0.5, 0.5], threshold=0.5) == 0.5


def test_eer_threshold_separates_perfect_scores():
    rate, threshold = equal_error_rate([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.8])
    assert rate == 0.0
    assert 0.2 < threshold <= 0.7


def test_eer_of_ties_is_a_coin():
    rate, _ = equal_error_rate([0, 1, 0, 1], [0.5] * 4)
    assert rate == 0.5


def test_eer_is_where_both_error_rates_meet():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 4000)
    scores = generator.normal(labels * 1.2, 1.0)
    rate, threshold = equal_error_rate(labels, scores)
    assert np.mean(scores[labels == 0] >= threshold) == pytest.approx(rate, abs=2e-3)
    assert np.mean(scores[labels == 1] < threshold) == pytest.approx(rate, abs=2e-3)


@pytest.mark.parametrize(("label", "word"), [(0, "fake"), (1, "real")])
def test_one_class_has_no_ranking_metrics(label, word):
    result = detection_metrics([label] * 3, [0.2, 0.6, 0.9])
    assert result.auc is None
    assert result.eer is None
    assert result.eer_threshold is None
    assert result.accuracy == (1 / 3 if label == 0 else 2 / 3)
    assert set(result.undefined) == {"auc", "eer"}
    assert f"no {word} picture" in result.undefined["auc"]


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "nothing to evaluate"),
        ([0, 1], [0.5], r"shape \(2,\) and scores \(1,\)"),
        ([0, 2], [0.5, 0.5], r"labels holds \[2\]"),
        ([0, 1], [0.5, float("nan")], "1 of 2 scores are not finite, the first at index 1"),
        ([0, 1], [0.5, float("inf")], "not finite"),
    ],
)
def test_bad_input(labels, scores, message):
    for function in (accuracy, auc, equal_error_rate, detection_metrics):
        with pytest.raises(ValueError, match=message):
            function(labels, scores)


def test_manipulation_table():
    methods = ["real", "real", "real", "real", "A", "A", "B", "B"]
    table = manipulation_table(LABELS, SCORES, methods)
    assert table == {
        "real": {"count": 4, "accuracy": 3 / 4, "auc": None},
        "A": {"count": 2, "accuracy": 1 / 2, "auc": 7 / 8},
        "B": {"count": 2, "accuracy": 1.0, "auc": 1.0},
    }


def test_manipulation_table_without_reals():
    assert manipulation_table([1, 1], [0.2, 0.7], ["A", "A"]) == {"A": {"count": 2, "accuracy": 0.5, "auc": None}}


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ImportError, match=r"deepfake-detectors\[eval\]"):
        auc(LABELS, SCORES)


class TestPlatt:
    @pytest.mark.parametrize("size", [1e-4, 1.0, 1e3])
    def test_recovers_the_line_that_made_the_labels(self, size):
        generator = np.random.default_rng(0)
        differences = generator.normal(0, 2, 40000)
        labels = generator.random(40000) < 1 / (1 + np.exp(-(1.5 * differences + 0.0)))
        fitted = fit_platt(labels.astype(int), differences * size)
        assert fitted["scale"] * size == pytest.approx(1.5, rel=0.05)
        assert fitted["bias"] == pytest.approx(0.0, abs=0.05)

    def test_class_share_does_not_move_the_threshold(self):
        generator = np.random.default_rng(1)
        reals, fakes = generator.normal(-1, 1, 5000), generator.normal(1, 1, 500)
        fitted = fit_platt([0] * 5000 + [1] * 500, np.concatenate([reals, fakes]))
        assert calibrated_probability([0.0], fitted)[0] == pytest.approx(0.5, abs=0.03)

    def test_backward_scores_are_refused(self):
        with pytest.raises(ValueError, match="higher scores mean less fake"):
            fit_platt([0, 0, 1, 1, 0, 1], [3.0, 2.0, -1.0, -2.0, 0.0, 0.1])

    def test_one_class_is_refused(self):
        with pytest.raises(ValueError, match="no fake picture"):
            fit_platt([0, 0], [0.1, 0.2])

    def test_constant_scores_are_refused(self):
        with pytest.raises(ValueError, match="same score"):
            fit_platt([0, 1], [0.3, 0.3])
