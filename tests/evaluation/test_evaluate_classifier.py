import json

import numpy as np
import pytest

from deepfake_detectors.evaluation.evaluate_classifier import EvaluationArguments, evaluate_classifier, summarize
from deepfake_detectors.evaluation.metrics import auc
from deepfake_detectors.evaluation.protocols.m2f2_det_answers import main
from support.ddvqa_tree import stems, write_tree
from support.tiny_models import tiny_m2f2_det


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "ddvqa", stems(range(3)), stems(range(20, 26), "03"), size=56)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_m2f2_det(tmp_path_factory.mktemp("model"))


def test_command_writes_what_it_measured(data, model, tmp_path):
    output = tmp_path / "new" / "results.json"
    main(["--model", str(model), "--data_dir", str(data), "--output", str(output), "--resamples", "50"])
    results = json.loads(output.read_text())
    assert (results["num_real"], results["num_fake"]) == (6, 12)
    assert set(results["per_manipulation"]) == {"real", "Deepfakes", "FaceSwap"}
    for name in ("accuracy", "auc", "eer"):
        entry = results["metrics"][name]
        assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1, name


def test_batch_size_does_not_matter(data, model, tmp_path):
    found = [
        evaluate_classifier(
            EvaluationArguments(
                model=str(model), data_dir=str(data), output=str(tmp_path / "r.json"), batch_size=size, resamples=20
            )
        )["metrics"]
        for size in (1, 7)
    ]
    assert found[0] == found[1]


def test_one_class_is_said_not_scored():
    results = summarize([1, 1, 1], np.array([0.2, 0.6, 0.9]), ["A", "A", "B"], ["g", "g", "h"], resamples=20)
    assert results["metrics"]["auc"] == {"value": None, "low": None, "high": None}
    assert "no real picture" in results["undefined"]["auc"]
    assert results["metrics"]["accuracy"]["value"] == 2 / 3
    json.dumps(results, allow_nan=False)


def test_method_is_ranked_against_all_reals():
    labels, scores = [0, 0, 1, 1], np.array([0.1, 0.6, 0.5, 0.9])
    table = summarize(labels, scores, ["real", "real", "A", "B"], list("abcd"), resamples=20)["per_manipulation"]
    assert table["A"]["auc"] == auc([0, 0, 1], scores[:3]) == 0.5
    assert table["B"]["auc"] == 1.0


def test_unknown_split(data, model, tmp_path):
    with pytest.raises(ValueError, match="no split 'dev', but train, test"):
        evaluate_classifier(EvaluationArguments(model=str(model), data_dir=str(data), split="dev"))
