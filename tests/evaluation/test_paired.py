"""Paired differences: against DeLong's formula, and against simulations whose truth is known."""

from statistics import NormalDist

import numpy as np
import pytest

from deepfake_detectors.evaluation.paired import compare_scores


def two_detectors(seed, size=150, better=1.5, worse=1.0, shared=0.7):
    """Binormal scores of two detectors that err on the same pictures; the true AUCs are known."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([0, 1], size)
    common = generator.normal(size=2 * size) * shared
    own = [generator.normal(size=2 * size) * np.sqrt(1 - shared**2) for _ in range(2)]
    return labels, common + own[0] + worse * labels, common + own[1] + better * labels


def delong(labels, first, second):
    """Difference of two AUCs and its standard error (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988)."""
    parts = []
    for scores in (first, second):
        fake, real = scores[labels == 1], scores[labels == 0]
        wins = (fake[:, None] > real[None]) + 0.5 * (fake[:, None] == real[None])
        parts.append((wins.mean(), wins.mean(axis=1), wins.mean(axis=0)))
    difference = parts[1][0] - parts[0][0]
    variance = sum(
        np.cov(parts[0][side], parts[1][side])[[0, 1], [0, 1]].sum() / len(parts[0][side])
        - 2 * np.cov(parts[0][side], parts[1][side])[0, 1] / len(parts[0][side])
        for side in (1, 2)
    )
    return difference, np.sqrt(variance)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_delong(seed):
    labels, first, second = two_detectors(seed, size=300)
    difference, error = delong(labels, first, second)
    found = compare_scores(labels, first, second, resamples=2000, seed=seed).metrics["auc_difference"]
    assert found["value"] == pytest.approx(difference, abs=1e-12)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found["low"] == pytest.approx(difference - 1.96 * error, abs=0.2 * error)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """95 % intervals of 200 simulated sets; 95 % of 200 within four standard deviations."""
    truth = NormalDist().cdf(1.5 / 2**0.5) - NormalDist().cdf(1.0 / 2**0.5)
    found = [
        compare_scores(*two_detectors(seed, size=100), resamples=200, seed=seed).metrics["auc_difference"]
        for seed in range(200)
    ]
    covered = sum(entry["low"] <= truth <= entry["high"] for entry in found)
    assert abs(covered - 190) <= 4 * (200 * 0.95 * 0.05) ** 0.5
    assert np.mean([entry["value"] for entry in found]) == pytest.approx(truth, abs=0.01)


def test_pairing_narrows_the_interval():
    labels, first, second = two_detectors(0)
    paired = compare_scores(labels, first, second, resamples=500).metrics["auc_difference"]
    generator = np.random.default_rng(1)
    order = np.concatenate([generator.permutation(150), 150 + generator.permutation(150)])
    unpaired = compare_scores(labels, first, second[order], resamples=500).metrics["auc_difference"]
    assert unpaired["value"] == pytest.approx(paired["value"])
    assert paired["high"] - paired["low"] < 0.85 * (unpaired["high"] - unpaired["low"])


def test_equal_detectors_and_one_class():
    labels, first, _ = two_detectors(0, size=20)
    same = compare_scores(labels, first, first, resamples=50)
    assert same.metrics["auc_difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert same.value("flip_rate") == 0.0
    real = compare_scores(np.zeros(3, int), [0.1, 0.6, 0.2], [0.7, 0.8, 0.1], resamples=0)
    assert real.value("auc") is None and "miss_rate" in real.undefined
    assert real.value("false_alarm_rate") == pytest.approx(2 / 3)
    assert real.value("flip_rate") == pytest.approx(1 / 3)


def test_groups_are_drawn_whole():
    labels, first, second = two_detectors(0, size=100)
    groups = [str(place % 20) for place in range(200)]
    alone = compare_scores(labels, first, second, resamples=200).metrics["accuracy_difference"]
    whole = compare_scores(labels, first, second, groups=groups, resamples=200).metrics["accuracy_difference"]
    assert alone["value"] == whole["value"] and alone != whole
