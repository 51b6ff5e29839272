import json
import sys

import numpy as np
import pytest

from deepfake_detectors.evaluation.metrics import (
    MetricSet,
    accuracy,
    auc,
    brier_score,
    category_table,
    detection_metrics,
    equal_error_rate,
    expected_calibration_error,
    manipulation_table,
    remarks,
    require_scikit_learn,
    score_metrics,
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
    with pytest.raises(ValueError, match=r"\(1,\).*\(8,\)"):
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
    assert f"no {word} image" in result.undefined["auc"]


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "nothing to evaluate"),
        ([0, 1], [0.5], r"shape \(2,\) and scores \(1,\)"),
        ([0, 2], [0.5, 0.5], r"labels .*\[2\]"),
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
        require_scikit_learn()


def test_all_values_counted_by_hand():
    result = score_metrics(LABELS, SCORES)
    assert result.undefined == {}
    assert result.value("balanced_accuracy") == result.value("accuracy") == 6 / 8
    assert result.value("f1_fake") == result.value("f1_real") == 3 / 4
    assert result.value("tpr@fpr1%") == 3 / 4  # above the highest real lie three of the four fakes
    assert result.value("auc") == 15 / 16
    assert result.value("ap") == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)
    assert result.value("brier") == pytest.approx(sum((s - t) ** 2 for s, t in zip(SCORES, LABELS, strict=True)) / 8)


def test_both_polarities_of_f1_differ():
    result = score_metrics([0, 1, 1, 1], [0.9, 0.9, 0.9, 0.1])
    assert result.value("f1_fake") == pytest.approx(2 / 3)
    assert result.value("f1_real") == 0.0


@pytest.mark.parametrize(("label", "absent", "present"), [(1, "real", "f1_fake"), (0, "fake", "f1_real")])
def test_one_class_set_has_reasons_and_no_zeros(label, absent, present):
    result = score_metrics([label] * 3, [0.2, 0.6, 0.9], resamples=20)
    undefined = {"balanced_accuracy", f"f1_{absent}", "auc", "ap", "eer", "tpr@fpr1%", "tpr@fpr0.1%"}
    assert set(result.undefined) == undefined
    assert {result.value(name) for name in undefined} == {None}
    assert all(f"no {absent} image" in reason for reason in result.undefined.values())
    assert result.value(present) is not None and result.value("accuracy") is not None
    json.dumps(result.to_dict(), allow_nan=False)


def test_calibration_error_of_a_calibrated_and_an_overconfident_score():
    labels = np.array([0, 1] * 500)
    assert expected_calibration_error(labels, np.full(1000, 0.5)) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(labels, np.full(1000, 1.0)) == pytest.approx(0.5)
    # Opposite errors in different bins do not cancel.
    assert expected_calibration_error(labels, 1.0 - labels) == 1.0


def test_scores_that_are_no_probabilities():
    result = score_metrics(LABELS, np.array(SCORES) * 10, threshold=5.0)
    assert set(result.undefined) == {"brier", "ece"}
    assert "from 1 to 9" in result.undefined["brier"]
    assert result.value("auc") == 15 / 16
    with pytest.raises(ValueError, match="needs probabilities"):
        brier_score(LABELS, np.array(SCORES) - 1)


def test_intervals_hold_the_values():
    result = score_metrics(LABELS, SCORES, groups=list("abcdabcd"), resamples=100)
    for name, entry in result.metrics.items():
        if name == "ece":
            assert entry["low"] is None
        else:
            assert entry["low"] <= entry["value"] <= entry["high"], name


def test_coarse_false_positive_rates_are_remarked():
    assert [text.split(":")[0] for text in remarks([0] * 200 + [1])] == ["tpr@fpr0.1%"]
    assert remarks([0] * 1000 + [1]) == remarks([1]) == []


def test_metric_set_refuses_what_is_no_number():
    result = MetricSet()
    with pytest.raises(ValueError, match="finite"):
        result.add("auc", float("nan"))
    with pytest.raises(ValueError, match="'auc'"):
        result.add("auc", None)
    result.add("auc", 0.5)
    with pytest.raises(ValueError, match="already"):
        result.add("auc", 0.6)
