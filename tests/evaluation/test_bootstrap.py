import numpy as np
import pytest

from deepfake_detectors.evaluation.bootstrap import bootstrap_interval
from deepfake_detectors.evaluation.metrics import accuracy, auc


def mean_score(labels, scores):
    return float(scores.mean())


@pytest.fixture(scope="module")
def sample():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    return labels, generator.normal(labels, 1.0)


def test_interval_of_a_share_matches_the_normal_approximation():
    labels = np.array([0] * 200 + [1] * 200)
    scores = np.where(np.arange(400) % 4 == 0, 1 - labels, labels)  # three of four verdicts are right
    interval = bootstrap_interval(accuracy, labels, scores)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert interval.low == pytest.approx(0.75 - half, abs=0.006)
    assert interval.high == pytest.approx(0.75 + half, abs=0.006)


def test_seed_decides(sample):
    first = bootstrap_interval(auc, *sample, resamples=200, seed=1)
    assert first == bootstrap_interval(auc, *sample, resamples=200, seed=1)
    assert first != bootstrap_interval(auc, *sample, resamples=200, seed=2)


def test_lower_level_is_narrower(sample):
    wide = bootstrap_interval(auc, *sample, resamples=300)
    narrow = bootstrap_interval(auc, *sample, level=0.5, resamples=300)
    assert wide.low < narrow.low < auc(*sample) < narrow.high < wide.high


def test_dependent_pictures_widen_the_interval():
    generator = np.random.default_rng(0)
    groups = [f"g{index // 10}" for index in range(400)]
    scores = np.repeat(generator.normal(0, 1, 40), 10)  # ten copies of each: only 40 independent pictures
    labels = np.arange(400) % 2
    alone = bootstrap_interval(mean_score, labels, scores, resamples=400)
    together = bootstrap_interval(mean_score, labels, scores, groups=groups, resamples=400)
    assert together.by == "group"
    assert 2.2 < (together.high - together.low) / (alone.high - alone.low) < 4.5  # sqrt(10) = 3.2


def test_undefined_metric_has_no_interval():
    assert bootstrap_interval(auc, [1, 1, 1], [0.1, 0.2, 0.3]) is None


def test_resamples_that_miss_a_class_are_left_out():
    interval = bootstrap_interval(auc, [0, 1, 1], [0.1, 0.2, 0.3], groups=["a", "b", "b"], resamples=200)
    assert 0 < interval.resamples < 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, "level is 1.0"),
        ({"resamples": 0}, "resamples is 0"),
        ({"groups": ["a"]}, r"groups has shape \(1,\)"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(auc, [0, 1], [0.1, 0.2], **options)
