import numpy as np
import pytest

from deepfake_detectors.evaluation.calibration import (
    calibrated_probability,
    logit_differences,
)
from deepfake_detectors.evaluation.fitting import calibrate, composed, moved_threshold, save_calibrated
from deepfake_detectors.evaluation.metrics import Settings
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.outputs import OutputInUseError, lock_beside
from support.tiny_models import tiny_m2f2_det


def sample(count=4000, scale=0.4, bias=0.7, seed=0):
    """Logits whose true P(fake) is sigmoid(scale * logit + bias)."""
    generator = np.random.default_rng(seed)
    differences = generator.normal(0, 4, count)
    return (generator.random(count) < 1 / (1 + np.exp(-(scale * differences + bias)))).astype(int), differences


def rows_of(labels, scores, prefix="p", **extra):
    names = ("real", "fake")
    return [
        Prediction(f"{prefix}{n}", names[label], float(score), **extra)
        for n, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]


def test_calibrations_put_behind_each_other():
    first, second, values = {"scale": 2.0, "bias": -1.0}, {"scale": 0.5, "bias": 3.0}, np.linspace(-4, 4, 9)
    inner, _ = logit_differences(calibrated_probability(values, first))
    np.testing.assert_allclose(
        calibrated_probability(inner, second), calibrated_probability(values, composed(first, second))
    )


def test_moved_threshold_parts_the_same_pictures():
    scores = np.random.default_rng(0).random(200)
    fitted = {"scale": 0.3, "bias": -0.8}
    after = calibrated_probability(logit_differences(scores)[0], fitted)
    for threshold in (0.0, 0.2, 0.9, 1.0):
        assert ((after >= moved_threshold(threshold, fitted)) == (scores >= threshold)).all()


def test_fit_on_some_pictures_improves_others():
    settings = Settings(resamples=50)
    sides = []
    for seed in (1, 2):
        labels, differences = sample(seed=seed, bias=0.0)
        sides.append(rows_of(labels, 1 / (1 + np.exp(-differences)), f"s{seed}-"))
    found = calibrate("platt", sides[0], "validation", sides[1], settings)
    told = found.describe(sides[1], settings)
    assert told["measured_on"] == "other images" and told["remarks"] == []
    assert told["ece"]["after"] < 0.03 < told["ece"]["before"]
    assert told["brier"]["after"] < told["brier"]["before"]
    point = told["operating_points"]["fpr@1%"]
    assert 0.003 < point["fpr"]["value"] < 0.03
    assert point["threshold"]["low"] <= point["threshold"]["value"] <= point["threshold"]["high"]
    # The order is the same, so that the fitted threshold calls as many fake as before.
    kept = calibrate("keep", sides[0], "validation", sides[1], settings)
    assert kept.apply(sides[1]) == sides[1]
    assert kept.describe(sides[1], settings)["operating_points"]["fpr@1%"]["fpr"] == point["fpr"]


def test_fit_and_measurement_on_one_set_is_labelled():
    rows = rows_of([0, 1] * 60, np.random.default_rng(0).random(120) / 2 + np.tile([0.0, 0.5], 60))
    told = calibrate("temperature", rows, "x", None, Settings(resamples=0)).describe(rows, Settings(resamples=0))
    assert told["measured_on"] == "the images it was fitted on" and "same images" in told["remarks"][0]
    assert told["operating_points"]["eer"]["threshold"]["low"] is None
    assert "fpr@0.1%" in told["unavailable"] and "fpr@0.1%" not in told["operating_points"]


def test_pictures_on_both_sides():
    rows = rows_of([0, 1], [0.2, 0.8])
    with pytest.raises(ValueError, match=r"^2 images.* p0"):
        calibrate("platt", rows, "x", list(rows), Settings())
    others = rows_of([0, 1], [0.3, 0.6], "q", group_id="g7")
    fit = rows_of([0, 1], [0.3, 0.6], "p", group_id="g7")
    found = calibrate("platt", fit, "x", others, Settings(resamples=0))
    assert found.shared_groups == 1 and "such as g7" in found.remarks[0]
    with pytest.raises(ValueError, match="allowed are platt, temperature, keep"):
        calibrate("isotonic", fit, "x", others, Settings())


def test_a_checkpoint_is_calibrated_by_one_process_at_a_time(tmp_path):
    model = tiny_m2f2_det(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    labels, differences = sample(400)
    rows = rows_of(labels, 1 / (1 + np.exp(-differences)))
    found = calibrate("platt", rows, "rows", None, Settings(resamples=0))
    for target in (model, tmp_path / "copy"):
        with lock_beside(target), pytest.raises(OutputInUseError, match="process"):
            save_calibrated(str(model), target, found, None)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    save_calibrated(str(model), tmp_path / "copy", found, None)
    save_calibrated(str(model), model, found, None)
    assert (model / "calibration.json").read_bytes() == (tmp_path / "copy" / "calibration.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "model"]
