import json

import numpy as np
import pytest

from deepfake_detectors.evaluation import metrics
from deepfake_detectors.evaluation.metrics import MetricSet, remarks, score_metrics

LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
SCORES = [0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9]


def test_values_counted_by_hand():
    result = score_metrics(LABELS, SCORES)
    assert result.undefined == {}
    assert result.value("balanced_accuracy") == result.value("accuracy") == 6 / 8
    assert result.value("f1_fake") == result.value("f1_real") == 3 / 4
    assert result.value("tpr@fpr1%") == 3 / 4  # above the highest real lie three of the four fakes
    assert result.value("auc") == 15 / 16
    assert result.value("ap") == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)
    assert result.value("brier") == pytest.approx(sum((s - t) ** 2 for s, t in zip(SCORES, LABELS, strict=True)) / 8)


def test_both_polarities_of_f1_differ():
    labels, scores = [0, 1, 1, 1], [0.9, 0.9, 0.9, 0.1]
    assert metrics.f1_score(labels, scores) == pytest.approx(2 / 3)
    assert metrics.f1_score(labels, scores, positive="real") == 0.0
    with pytest.raises(ValueError, match="expected 'fake' or 'real'"):
        metrics.f1_score(labels, scores, positive="genuine")


@pytest.mark.parametrize(("label", "absent", "present"), [(1, "real", "f1_fake"), (0, "fake", "f1_real")])
def test_one_class_set_has_reasons_and_no_zeros(label, absent, present):
    result = score_metrics([label] * 3, [0.2, 0.6, 0.9], resamples=20)
    undefined = {"balanced_accuracy", f"f1_{absent}", "auc", "ap", "eer", "tpr@fpr1%", "tpr@fpr0.1%"}
    assert set(result.undefined) == undefined
    assert {result.value(name) for name in undefined} == {None}
    assert all(f"no {absent} picture" in reason for reason in result.undefined.values())
    assert result.value(present) is not None and result.value("accuracy") is not None
    json.dumps(result.to_dict(), allow_nan=False)


def test_calibration_error_of_a_calibrated_and_an_overconfident_score():
    labels = np.array([0, 1] * 500)
    assert metrics.expected_calibration_error(labels, np.full(1000, 0.5)) == pytest.approx(0.0, abs=1e-12)
    assert metrics.expected_calibration_error(labels, np.full(1000, 1.0)) == pytest.approx(0.5)
    # Opposite errors in different bins do not cancel.
    assert metrics.expected_calibration_error(labels, 1.0 - labels) == 1.0


def test_scores_that_are_no_probabilities():
    result = score_metrics(LABELS, np.array(SCORES) * 10, threshold=5.0)
    assert set(result.undefined) == {"brier", "ece"}
    assert "from 1 to 9" in result.undefined["brier"]
    assert result.value("auc") == 15 / 16
    with pytest.raises(ValueError, match="needs probabilities"):
        metrics.brier_score(LABELS, np.array(SCORES) - 1)


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
    with pytest.raises(ValueError, match="no reason"):
        result.add("auc", None)
    result.add("auc", 0.5)
    with pytest.raises(ValueError, match="already"):
        result.add("auc", 0.6)
