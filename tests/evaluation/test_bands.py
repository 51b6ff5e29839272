"""Decision bands: the promise is kept as often as promised, groups count once, too few pictures are refused."""

import math

import numpy as np
import pytest
from scipy import stats

from deepfake_detectors.evaluation.bands import fit_band, needed_units, plot_band, safe_rank
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.modeling.configuration_detection import check_decision_band, decide

SHIFT = 2.0  # of fakes against reals, in deviations of the logit


def rows(real, fake, groups=None) -> list[Prediction]:
    """Predictions of logits `real` and `fake`."""
    values = [("real", value) for value in real] + [("fake", value) for value in fake]
    return [
        Prediction(str(n), label, 1 / (1 + math.exp(-value)), group_id=None if groups is None else groups[n])
        for n, (label, value) in enumerate(values)
    ]


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def kept_promises(rate: float, groups: int, pictures: int, spread: float) -> tuple[int, int, list[float]]:
    """In how many of 200 sets the true rates keep the promise; scores of a group share a part of their variance."""
    false_alarms, misses, rates = 0, 0, []
    own = math.sqrt(1 - spread**2)
    for seed in range(200):
        draw = np.random.default_rng(seed)
        real, fake = (
            (spread * draw.normal(size=(groups, 1)) + own * draw.normal(size=(groups, pictures)) + middle).ravel()
            for middle in (0.0, SHIFT)
        )
        names = [f"{label}{group}" for label in "rf" for group in range(groups) for _ in range(pictures)]
        band = fit_band(rows(real, fake, names), rate, seed=seed)
        true_rate = stats.norm.sf(logit(band.high))
        rates.append(true_rate)
        false_alarms += true_rate <= rate
        misses += stats.norm.cdf(logit(band.low) - SHIFT) <= rate
    return false_alarms, misses, rates


@pytest.mark.parametrize(
    ("rate", "groups", "pictures", "spread"), [(0.05, 300, 1, 0.0), (0.1, 120, 1, 0.0), (0.05, 300, 6, 0.9)]
)
def test_the_promise_is_kept_as_often_as_promised(rate, groups, pictures, spread):
    kept, kept_low, rates = kept_promises(rate, groups, pictures, spread)
    least = stats.binom.ppf(0.001, 200, 0.95)  # what chance alone may take from 190
    assert kept >= least
    assert kept_low >= least
    assert np.mean(rates) > 0.3 * rate, "a promise is also kept by a band that never answers"


def test_ignoring_groups_would_break_the_promise():
    """Else the test above would not see whether groups count."""
    broken = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        real = (0.99 * draw.normal(size=(40, 1)) + 0.14 * draw.normal(size=(40, 10))).ravel()
        fake = draw.normal(size=400) + SHIFT
        broken += stats.norm.sf(logit(fit_band(rows(real, fake), 0.05, seed=seed).high)) > 0.05
    assert broken > 30


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2, 0.45])
@pytest.mark.parametrize("units", [10, 59, 60, 300, 1000])
def test_rank_is_the_first_one_that_is_safe(rate, units):
    rank = safe_rank(units, rate, 0.95)
    safe = [k for k in range(1, units + 1) if stats.beta.cdf(rate, units - k + 1, k) >= 0.95]
    assert rank == (safe[0] if safe else None)
    assert (units >= needed_units(rate, 0.95)) == bool(safe)


def test_measured_on_other_groups():
    draw = np.random.default_rng(0)
    band = fit_band(rows(draw.normal(size=600), draw.normal(size=400) + SHIFT), 0.05)
    assert {name: band.counts[name] for name in ("fitted_real", "measured_real")}.values() != {600}
    assert sum(band.counts.values()) == 1000
    assert band.false_alarm_rate == pytest.approx(0.03, abs=0.03)
    assert band.miss_rate == pytest.approx(0.03, abs=0.04)
    assert 0.4 < band.coverage < 0.8
    check_decision_band(band.to_config())
    again = fit_band(rows(draw.normal(size=600), draw.normal(size=400) + SHIFT), 0.05, seed=1)
    assert again.high != band.high


def test_pictures_of_one_group_stay_on_one_side():
    draw = np.random.default_rng(0)
    real, fake = draw.normal(size=800), draw.normal(size=800) + SHIFT
    groups = [f"g{n % 400}" for n in range(1600)]  # a group has two real and two fake pictures
    band = fit_band(rows(real, fake, groups), 0.05)
    assert band.counts == {"fitted_real": 200, "fitted_fake": 200, "measured_real": 400, "measured_fake": 400}


def test_too_few_pictures_are_refused_with_the_number_needed():
    draw = np.random.default_rng(0)
    real, fake = draw.normal(size=100), draw.normal(size=400) + SHIFT
    with pytest.raises(ValueError, match="59 real images"):
        fit_band(rows(real, fake), 0.05)
    assert fit_band(rows(real, fake), 0.1).high < 1
    with pytest.raises(ValueError, match="real images"):
        fit_band(rows([], fake), 0.05)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"false_alarm_rate": 0.0}, "false_alarm_rate"),
        ({"false_alarm_rate": 0.5}, "0.5"),
        ({"miss_rate": -1.0}, "miss_rate"),
        ({"confidence": 1.0}, "confidence"),
        ({"measured_share": 1.5}, "1.5"),
    ],
)
def test_numbers_out_of_range(options, named):
    with pytest.raises(ValueError, match=named):
        fit_band(rows([0.0] * 200, [1.0] * 200), **options)


def test_scores_must_be_probabilities():
    with pytest.raises(ValueError, match="P\\(fake\\)"):
        fit_band([Prediction("a", "real", 2.0)])
    with pytest.raises(ValueError, match="P\\(fake\\)"):
        fit_band([])


def test_saturated_reals_allow_no_threshold():
    predictions = [Prediction(str(n), "real", 1.0) for n in range(200)]
    predictions += [Prediction(f"f{n}", "fake", 0.9) for n in range(200)]
    with pytest.raises(ValueError, match="real images"):
        fit_band(predictions)


def test_classes_that_do_not_overlap_are_always_answered():
    draw = np.random.default_rng(0)
    band = fit_band(rows(draw.uniform(-5, -3, 200), draw.uniform(3, 5, 200)))
    assert band.low < band.high
    assert (band.coverage, band.false_alarm_rate, band.miss_rate) == (1.0, 0.0, 0.0)
    check_decision_band(band.to_config())


def test_words_of_a_decision():
    band = {"low": 0.3, "high": 0.7}
    assert [decide(p, band) for p in (0.0, 0.3, 0.31, 0.69, 0.7, 1.0)] == [
        *["likely real"] * 2,
        *["inconclusive"] * 2,
        *["likely fake"] * 2,
    ]
    assert decide(0.9, None) is None


def test_plot():
    draw = np.random.default_rng(0)
    band = fit_band(rows(draw.normal(size=600), draw.normal(size=400) + SHIFT), 0.05)
    promised = [point["promised"] for point in band.curve]
    assert promised == sorted(promised)
    assert len(promised) > 8
    assert plot_band(band).startswith(b"\x89PNG")
