import numpy as np
import pytest

from deepfake_detectors.evaluation import metrics
from deepfake_detectors.evaluation.calibration import LIMITS, find_operating_points, measure_threshold


def scores_of(reals, fakes):
    return np.array([0] * len(reals) + [1] * len(fakes)), np.concatenate([reals, fakes])


def test_threshold_lies_between_the_scores_it_parts():
    reals = np.linspace(0.1, 0.9, 100)  # one of a hundred may be called fake
    labels, scores = scores_of(reals, [0.95, 0.96])
    found = find_operating_points(labels, scores, resamples=0)
    assert found.values["fpr@1%"] == pytest.approx((reals[-2] + reals[-1]) / 2)
    rates = measure_threshold(labels, scores, found.values["fpr@1%"], resamples=0)
    assert rates["fpr"]["value"] == 0.01 and rates["tpr"]["value"] == 1.0


@pytest.mark.parametrize(("reals", "named"), [(99, {"eer"}), (100, {"eer", "fpr@1%"}), (1000, {"eer", *LIMITS})])
def test_too_few_reals_are_refused_not_extrapolated(reals, named):
    generator = np.random.default_rng(0)
    labels, scores = scores_of(generator.random(reals) * 0.8, generator.random(20))
    found = find_operating_points(labels, scores, resamples=0)
    assert set(found.values) == named and set(found.unavailable) == {"eer", *LIMITS} - named
    for name, reason in found.unavailable.items():
        assert f"needs {round(1 / LIMITS[name])} real pictures" in reason and f"holds {reals}" in reason


@pytest.mark.parametrize("digits", [1, 2, 9])
def test_no_more_reals_are_called_fake_than_allowed(digits):
    for seed in range(20):
        generator = np.random.default_rng(seed)
        labels, scores = scores_of(*(generator.beta(*shape, 150).round(digits) for shape in ((2, 5), (5, 2))))
        found = find_operating_points(labels, scores, resamples=0)
        reals = scores[labels == 0]
        if "fpr@1%" in found.unavailable:
            assert (reals == 1.0).mean() > 0.01
            continue
        limit = found.values["fpr@1%"]
        assert (reals >= limit).mean() <= 0.01
        # Any lower score that a real has would call too many fake.
        assert (reals >= reals[reals < limit].max()).mean() > 0.01
        expected = metrics.true_positive_rate_at(labels, scores, 0.01)
        assert measure_threshold(labels, scores, limit, resamples=0)["tpr"]["value"] == expected


def test_equal_errors_agree_with_the_metric():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 301)
    scores = np.clip(generator.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    rate, threshold = metrics.equal_error_rate(labels, scores)
    found = find_operating_points(labels, scores, resamples=200)
    assert found.values["eer"] == pytest.approx(threshold)
    rates = measure_threshold(labels, scores, threshold, resamples=200)
    assert rates["fpr"]["value"] == pytest.approx(rate, abs=0.02)
    assert 1 - rates["tpr"]["value"] == pytest.approx(rate, abs=0.02)
    for entry in (found.thresholds["eer"], rates["fpr"], rates["tpr"]):
        assert entry["low"] < entry["value"] < entry["high"]


def test_surely_fake_reals_leave_no_threshold():
    labels, scores = scores_of([1.0] * 5 + [0.2] * 95, [1.0] * 10)
    found = find_operating_points(labels, scores, resamples=0)
    assert "P(fake) = 1" in found.unavailable["fpr@1%"]


def test_one_class():
    found = find_operating_points([1, 1], [0.2, 0.9])
    assert found.values == {} and "no real picture" in found.unavailable["eer"]
    assert measure_threshold([1, 1], [0.2, 0.9], 0.5)["fpr"] == {"value": None, "low": None, "high": None}


def test_dependent_pictures_widen_the_interval_of_a_threshold():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(40) % 2, 10)
    scores = np.clip(np.repeat(generator.normal(0.4, 0.15, 40), 10) + 0.2 * labels, 0, 1)
    groups = [f"g{n // 10}" for n in range(400)]
    widths = []
    for given in (None, groups):
        entry = find_operating_points(labels, scores, given, resamples=300).thresholds["eer"]
        widths.append(entry["high"] - entry["low"])
    assert widths[1] > 1.5 * widths[0]
