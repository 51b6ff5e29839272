import numpy as np
import pytest
import sklearn.metrics
from scipy.optimize import brentq

from deepfake_detectors.evaluation.bootstrap import bootstrap_interval, draw_weights
from deepfake_detectors.evaluation.curve import ScoreCurve
from deepfake_detectors.evaluation.metrics import auc, score_intervals

RATES = {"tpr@1%": 0.01, "tpr@20%": 0.2}


def where_errors_meet(truth, scores):
    """Return the equal error rate from scikit-learn's curve."""
    false_alarms, hits, _ = sklearn.metrics.roc_curve(truth, scores, drop_intermediate=False)
    return brentq(lambda rate: 1 - rate - np.interp(rate, false_alarms, hits), 0, 1, xtol=1e-12)


def highest_rate(limit):
    def rate(truth, scores):
        false_alarms, hits, _ = sklearn.metrics.roc_curve(truth, scores, drop_intermediate=False)
        return hits[false_alarms <= limit].max()

    return rate


SINGLE = {
    "accuracy": lambda t, v: sklearn.metrics.accuracy_score(t, v >= 0.4),
    "balanced_accuracy": lambda t, v: sklearn.metrics.balanced_accuracy_score(t, v >= 0.4),
    "f1_fake": lambda t, v: sklearn.metrics.f1_score(t, v >= 0.4, pos_label=1),
    "f1_real": lambda t, v: sklearn.metrics.f1_score(t, v >= 0.4, pos_label=0),
    "auc": sklearn.metrics.roc_auc_score,
    "ap": sklearn.metrics.average_precision_score,
    "eer": where_errors_meet,
    "tpr@1%": highest_rate(0.01),
    "tpr@20%": highest_rate(0.2),
    "brier": sklearn.metrics.brier_score_loss,
}


@pytest.mark.parametrize("digits", [1, 6], ids=["ties", "distinct"])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_resample_has_the_metrics_of_the_pictures_drawn(digits, grouped):
    generator = np.random.default_rng(digits)
    labels = generator.integers(0, 2, 60)
    scores = np.clip(generator.normal(0.35 + 0.3 * labels, 0.3), 0, 1).round(digits)
    groups = [f"g{n // 7}" for n in range(60)] if grouped else None
    for weights in draw_weights(labels, groups, 25, seed=3):
        found = ScoreCurve(labels, scores).metrics(weights, 0.4, RATES)
        assert set(found) == set(SINGLE)
        for row, counts in enumerate(weights.astype(int)):
            drawn = np.repeat(np.arange(60), counts)
            for name, function in SINGLE.items():
                assert found[name][row] == pytest.approx(function(labels[drawn], scores[drawn]), abs=1e-9), name


def test_resample_of_one_class_leaves_ranking_undefined():
    labels, scores = np.array([0, 0, 1]), np.array([0.1, 0.7, 0.9])
    found = ScoreCurve(labels, scores).metrics(np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]), 0.5, RATES)
    for name in ("auc", "ap", "eer", "balanced_accuracy", "tpr@1%"):
        assert np.isnan(found[name]).all(), name
    assert np.isnan(found["f1_fake"]).tolist() == [True, False]
    assert found["accuracy"].tolist() == [1 / 3, 1.0]


def test_draws_keep_the_classes_or_the_groups():
    labels = np.array([0] * 3 + [1] * 5)
    weights = np.concatenate(list(draw_weights(labels, None, 50)))
    assert weights.shape == (50, 8) and (weights[:, :3].sum(axis=1) == 3).all() and (weights.sum(axis=1) == 8).all()
    together = np.concatenate(list(draw_weights(labels, list("aabbccdd"), 50)))
    assert (together[:, ::2] == together[:, 1::2]).all() and (together[:, ::2].sum(axis=1) == 4).all()
    for drawn in (weights, together):
        assert len({tuple(row) for row in drawn}) > 20
    with pytest.raises(ValueError, match="groups has 2 entries, expected one per unit, 8"):
        next(draw_weights(labels, ["a", "b"]))


def test_intervals_agree_with_those_of_single_resamples():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    scores = generator.normal(labels, 1.0)
    fast = score_intervals(labels, scores, resamples=2000)["auc"]
    slow = bootstrap_interval(auc, labels, scores, resamples=300)
    assert fast.resamples == 2000
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.012)
