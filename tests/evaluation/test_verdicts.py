import numpy as np
import pytest

from deepfake_detectors.evaluation.bootstrap import draw_weights
from deepfake_detectors.evaluation.verdicts import (
    category_verdicts,
    confusion,
    verdict_metrics,
    verdict_table,
)

TRUTH = ["fake", "fake", "fake", "real", "real"]


def test_undetermined_answers_are_misses_of_their_own_class():
    verdicts = ["fake", "real", None, "real", None]
    result = verdict_metrics(TRUTH, verdicts, resamples=0)
    assert result.value("accuracy") == 2 / 5
    assert result.value("recall_fake") == 1 / 3 and result.value("precision_fake") == 1.0
    assert result.value("recall_real") == 1 / 2 and result.value("precision_real") == 1 / 2
    assert result.value("balanced_accuracy") == pytest.approx((1 / 3 + 1 / 2) / 2)
    counts = confusion(TRUTH, verdicts)
    assert counts == {"tp": 1, "fp": 0, "fn": 1, "tn": 1, "undetermined_fake": 1, "undetermined_real": 1}


def test_one_class_and_silent_answers_have_reasons():
    result = verdict_metrics(["real", "real"], ["real", None], resamples=0)
    assert result.value("accuracy") == 1 / 2
    for name in ("balanced_accuracy", "f1_fake", "precision_fake", "recall_fake"):
        assert "no fake image" in result.undefined[name]
    assert verdict_metrics(TRUTH, ["real"] * 5, resamples=0).undefined == {"precision_fake": "no answer says fake"}


def test_intervals_are_those_of_the_answers_drawn():
    generator = np.random.default_rng(0)
    truth = generator.choice(["real", "fake"], 60).tolist()
    verdicts = generator.choice(["real", "fake", None], 60, p=[0.4, 0.5, 0.1]).tolist()
    found = verdict_metrics(truth, verdicts, resamples=40, seed=5).metrics
    weights = np.concatenate(list(draw_weights(np.asarray(truth), None, 40, seed=5))).astype(int)
    drawn: dict = {name: [] for name in found}
    for row in weights:
        places = np.repeat(np.arange(60), row)
        single = verdict_metrics([truth[i] for i in places], [verdicts[i] for i in places], resamples=0)
        for name, values in drawn.items():
            values.append(single.value(name))
    for name, entry in found.items():
        assert (entry["low"], entry["high"]) == pytest.approx(tuple(np.quantile(drawn[name], [0.025, 0.975]))), name


def test_categories_count_both_classes():
    table = category_verdicts(TRUTH, ["fake", "real", None, "real", None], ["b", "a", "b", "b", "a"])
    assert table == {
        "a": {"count": 2, "correct": 0, "undetermined": 1, "accuracy": 0.0},
        "b": {"count": 3, "correct": 2, "undetermined": 1, "accuracy": 2 / 3},
    }


def test_table_puts_the_reals_first():
    table = verdict_table(TRUTH, ["fake", "real", None, "real", None], ["B", "A", "A", "real", "real"])
    assert list(table) == ["real", "A", "B"]
    assert table["A"] == {"count": 2, "correct": 0, "undetermined": 1, "accuracy": 0.0}


@pytest.mark.parametrize(
    ("truth", "verdicts", "message"),
    [([], [], "nothing to evaluate"), (["fake"], [], "1 labels but 0"), (["1"], ["fake"], r"\['1'\]")],
)
def test_bad_input(truth, verdicts, message):
    with pytest.raises(ValueError, match=message):
        verdict_metrics(truth, verdicts)
