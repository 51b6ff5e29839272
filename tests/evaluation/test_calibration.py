import numpy as np
import pytest

from deepfake_detectors.evaluation.calibration import (
    LIMITS,
    calibrated_probability,
    find_operating_points,
    fit_calibration,
    fit_platt,
    logit_differences,
    measure_threshold,
)
from deepfake_detectors.evaluation.metrics import equal_error_rate, score_metrics


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
        assert f"needs {round(1 / LIMITS[name])} real images" in reason and reason.endswith(f" {reals}")


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
        expected = score_metrics(labels, scores).value("tpr@fpr1%")
        assert measure_threshold(labels, scores, limit, resamples=0)["tpr"]["value"] == expected


def test_equal_errors_agree_with_the_metric():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 301)
    scores = np.clip(generator.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    rate, threshold = equal_error_rate(labels, scores)
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
    assert found.values == {} and "no real image" in found.unavailable["eer"]
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


def sample(count=4000, scale=0.4, bias=0.7, seed=0):
    """Logits whose true P(fake) is sigmoid(scale * logit + bias)."""
    generator = np.random.default_rng(seed)
    differences = generator.normal(0, 4, count)
    return (generator.random(count) < 1 / (1 + np.exp(-(scale * differences + bias)))).astype(int), differences


def test_platt_finds_the_logistic_curve_and_agrees_with_the_hard_targets():
    labels, differences = sample(20000, bias=0.0)
    found = fit_calibration(labels, differences)
    assert found["scale"] == pytest.approx(0.4, abs=0.02) and found["bias"] == pytest.approx(0.0, abs=0.08)
    assert found == pytest.approx(fit_platt(labels, differences), abs=0.002)


def test_temperature_leaves_one_half_where_it_is():
    labels, differences = sample(20000, bias=0.0)
    found = fit_calibration(labels, differences, "temperature")
    assert found["bias"] == 0.0 and found["scale"] == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_classes_without_overlap_have_a_finite_calibration(method):
    found = fit_calibration([0, 0, 0, 1, 1, 1], [-3.0, -2.0, -2.5, 2.0, 3.0, 2.5], method)
    assert 0 < found["scale"] < 3
    # Where all are told apart, a fake is as sure as Platt's target: (n + 1) / (n + 2), here 4 / 5.
    sure = calibrated_probability([2.0, 2.5, 3.0], found)
    assert sure.mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(
    ("labels", "differences", "message"),
    [
        ([0, 0], [0.1, 0.2], "no fake image"),
        ([0, 1], [0.3, 0.3], "nothing to calibrate"),
        ([0, 0, 1, 1, 0, 1], [3.0, 2.0, -1.0, -2.0, 0.0, 0.1], "higher scores mean less fake"),
    ],
)
def test_what_cannot_be_calibrated(labels, differences, message):
    with pytest.raises(ValueError, match=message):
        fit_calibration(labels, differences)
    with pytest.raises(ValueError, match="'isotonic', allowed are 'platt', 'temperature'"):
        fit_calibration(labels, differences, "isotonic")


def test_logits_of_probabilities():
    differences, saturated = logit_differences([0.5, 0.9, 0.0, 1.0])
    assert differences[:2] == pytest.approx([0.0, np.log(9)])
    assert saturated == 2 and differences[3] == -differences[2] == pytest.approx(16.6, abs=0.1)
    with pytest.raises(ValueError, match="from -1 to 2; only probabilities"):
        logit_differences([-1.0, 2.0])


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
        with pytest.raises(ValueError, match="no fake image"):
            fit_platt([0, 0], [0.1, 0.2])

    def test_constant_scores_are_refused(self):
        with pytest.raises(ValueError, match="same score"):
            fit_platt([0, 1], [0.3, 0.3])
