"""`evaluate --fit`: from scores to a checkpoint with a calibration and named thresholds."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deepfake_detectors
from support.ddvqa_tree import stems, write_tree
from support.tiny_models import tiny_m2f2_det

QUICK = ("--resamples", "20", "--batch-size", "50")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """100 real and 20 fake pictures, which even a random detector scores differently."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for label, count in (("real", 100), ("fake", 20)):
        (root / label).mkdir()
        for number in range(count):
            grey = generator.integers(0, 256, (8, 8, 3)) // (1 + (label == "fake"))
            Image.fromarray(grey.astype(np.uint8)).resize((56, 56)).save(root / label / f"{number:03d}.png")
    return root


@pytest.fixture(scope="module")
def ranked(tmp_path_factory) -> Path:
    """A tiny detector that ranks those pictures the right way round, with a calibration of its own."""
    return tiny_m2f2_det(
        tmp_path_factory.mktemp("ranked"),
        calibration={"scale": 3.0, "bias": -0.4},
        operating_points={"house": 0.4, "eer": 0.123},
    )


@pytest.fixture(scope="module")
def folders(pictures) -> tuple:
    return ("--real-dir", pictures / "real", "--fake-dir", pictures / "fake")


def test_stored_with_a_copy_and_used_by_the_pipeline(shell, ranked, folders, tmp_path):
    target, output = tmp_path / "new" / "calibrated", tmp_path / "out"
    result = shell(
        *("evaluate", "--model", ranked, *folders, "--fit", "platt", "--save-to", target, "--output", output, *QUICK),
        *("--threshold", "eer"),
    )
    assert result.exit_code == 0, result.stderr
    told = read(output / "results.json")["calibration"]
    points = told["operating_points"]
    assert told["measured_on"] == "the images it was fitted on"
    assert set(points) == {"eer", "fpr@1%"}
    assert "fpr@0.1% was not fitted: it needs 1000 real images" in result.stderr
    assert read(output / "results.json")["threshold"] == points["eer"]["threshold"]["value"]

    stored, record = read(target / "config.json"), read(target / "calibration.json")
    assert stored["calibration"] == record["calibration"] and record["fit"] == told
    assert stored["operating_points"] == record["operating_points"]
    assert stored["operating_points"]["eer"] == points["eer"]["threshold"]["value"]
    assert "house" in stored["operating_points"]
    assert not (target / "README.md").exists() and [path.name for path in target.parent.iterdir()] == ["calibrated"]

    before = deepfake_detectors.pipeline(model=str(ranked))
    after = deepfake_detectors.pipeline(model=str(target))
    paths = sorted(str(path) for folder in folders[1::2] for path in folder.iterdir())
    old, new = before(paths, threshold="house"), after(paths, threshold="house")
    # The order and what "house" parts are as before; the probabilities are new.
    assert [row["label"] for row in new] == [row["label"] for row in old]
    assert max(abs(a["fake_probability"] - b["fake_probability"]) for a, b in zip(old, new, strict=True)) > 0.01
    judged = {row["id"]: row["score"] for row in map(json.loads, (output / "predictions.jsonl").open())}
    expected = 1 / (
        1 + np.exp(-(told["scale"] * np.log(1 / (1 / np.array(list(judged.values())) - 1)) + told["bias"]))
    )
    by_path = dict(zip(judged, expected, strict=True))
    for path, row in zip(paths, new, strict=True):
        label = "real" if Path(path).parent == Path(folders[1]) else "fake"
        assert row["fake_probability"] == pytest.approx(by_path[f"{label}/{Path(path).name}"], abs=2e-6)
    reals = [
        row for path, row in zip(paths, after(paths, threshold="eer"), strict=True) if Path(path).parent == folders[1]
    ]
    called = np.mean([row["label"] == "fake" for row in reals])
    assert called == pytest.approx(points["eer"]["fpr"]["value"])


def test_published_with_the_model(shell, ranked, folders, tmp_path):
    target, output, pushed = tmp_path / "calibrated", tmp_path / "out", tmp_path / "pushed"
    fit = ("evaluate", "--model", ranked, *folders, "--fit", "temperature", "--save-to", target, "--output", output)
    assert shell(*fit, *QUICK).exit_code == 0
    results = output / "results.json"
    result = shell("publish", "--model", target, "--repo", "me/mine", "--dry-run", pushed, "--results", results)
    assert result.exit_code == 0, result.stderr
    assert (pushed / "calibration.json").read_bytes() == (target / "calibration.json").read_bytes()
    for name in ("calibration", "operating_points"):
        assert read(pushed / "config.json")[name] == read(target / "config.json")[name]
    assert "`fpr@1%`" in (pushed / "README.md").read_text()


def test_in_place_and_thresholds_alone(shell, folders, tmp_path, ranked):
    import shutil

    own = tmp_path / "own"
    shutil.copytree(ranked, own)
    weights = (own / "model.safetensors").read_bytes()
    command = ("evaluate", "--model", own, *folders, "--fit", "keep", "--save-to", own, "--output", tmp_path / "out")
    result = shell(*command, *QUICK)
    assert result.exit_code == 0, result.stderr
    stored = read(own / "config.json")
    assert stored["calibration"] == {"scale": 3.0, "bias": -0.4}
    assert stored["operating_points"]["house"] == 0.4 and stored["operating_points"]["eer"] != 0.123
    assert (own / "model.safetensors").read_bytes() == weights and not list(own.glob("*.part"))
    # The name is now one of the model's, for `evaluate` too.
    again = shell(
        *("evaluate", "--model", own, *folders, "--threshold", "eer", "--output", tmp_path / "again", *QUICK)
    )
    assert again.exit_code == 0, again.stderr
    assert read(tmp_path / "again" / "results.json")["threshold"] == stored["operating_points"]["eer"]


def test_fit_on_another_split(shell, tmp_path, ranked):
    data = write_tree(tmp_path / "ddvqa", stems(range(12)), stems(range(20, 32)), size=56)
    for side, message in (("train", ""), ("validation", "has no split 'validation'")):
        result = shell(
            *("evaluate", "--model", ranked, "--dataset", "ddvqa", "--data-dir", data, "--fit", "keep"),
            *("--fit-split", side, "--output", tmp_path / side, *QUICK),
        )
        if message:
            assert result.exit_code == 2 and message in result.stderr
        else:
            assert result.exit_code == 0, result.stderr
            told = read(tmp_path / side / "results.json")["calibration"]
            assert told["measured_on"] == "other images" and told["fitted_on"]["set"] == "ddvqa/train"
            assert "Note: Fitted on a training split" in result.stderr
        assert (tmp_path / side / "fit" / "predictions.jsonl").exists() == (side == "train")


def write_predictions(path: Path, seed: int, reals: int, fakes: int) -> Path:
    generator = np.random.default_rng(seed)
    rows = [
        {"id": f"{path.stem}{n}", "label": label, "score": float(1 / (1 + np.exp(-generator.normal(mean, 2))))}
        for label, mean, count in (("real", -2, reals), ("fake", 3, fakes))
        for n in range(count * (label == "fake"), count * (label == "fake") + count)
    ]
    for number, row in enumerate(rows):
        row["id"] = f"{path.stem}{number}"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_cached_predictions_alone(shell, tmp_path):
    fit = write_predictions(tmp_path / "validation.jsonl", 0, 1000, 300)
    test = write_predictions(tmp_path / "test.jsonl", 1, 1500, 300)
    command = ("evaluate", "--predictions", test, "--output", tmp_path / "out", "--resamples", 20)
    result = shell(*command, "--fit", "platt", "--fit-predictions", fit, "--threshold", "fpr@0.1%")
    assert result.exit_code == 0, result.stderr
    results = read(tmp_path / "out" / "results.json")
    told = results["calibration"]
    assert set(told["operating_points"]) == {"eer", "fpr@1%", "fpr@0.1%"} and told["unavailable"] == {}
    assert told["fitted_on"] == {"set": "validation.jsonl", "num_real": 1000, "num_fake": 300, "saturated": 0}
    assert results["threshold"] == told["operating_points"]["fpr@0.1%"]["threshold"]["value"]
    assert told["operating_points"]["fpr@1%"]["fpr"]["value"] < 0.03
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| fpr@0.1% |" in report and "1000 real and 300 fake images" in report and "validation.jsonl" in report
    # Ranking is untouched.
    plain = shell(*command)
    assert plain.exit_code == 0
    assert read(tmp_path / "out" / "results.json")["metrics"]["auc"] == results["metrics"]["auc"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fit", "isotonic"), "--fit is 'isotonic', allowed are platt, temperature, keep"),
        (("--save-to", "there"), "--fit"),
        (("--fit", "platt", "--save-to", "there"), "not cached predictions"),
        (("--fit", "platt", "--fit-split", "validation"), "--fit-predictions"),
        (("--fit", "platt", "--fit-predictions", "p.jsonl"), "60 images"),
        (("--fit", "platt", "--protocol", "paper:antifakeprompt"), "scores as published, uncalibrated"),
        (("--fit", "platt", "--threshold", "fpr@1%"), "fpr@1% could not be fitted: it needs 100 real images"),
        (("--fit", "platt", "--threshold", "strict"), "Known: eer, fpr@1%, fpr@0.1%"),
        (("--threshold", "fpr@1%"), "'fpr@1%'"),
        (("--threshold", "1.5"), "expected a number in [0, 1]"),
        (("--threshold", "nan"), "expected a number in [0, 1]"),
        (("--fit", "platt", "--predictions", "words.jsonl"), "--predictions"),
        (("--fit", "platt", "--fit-predictions", "answers.jsonl"), "answers.jsonl"),
        (("--fit", "platt", "--fit-predictions", "words.jsonl"), "1 of 1 predictions have no score"),
    ],
)
def test_wrong_fit(shell, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_predictions(tmp_path / "p.jsonl", 0, 30, 30)
    (tmp_path / "words.jsonl").write_text('{"id": "a", "label": "real", "text": "real"}\n')
    (tmp_path / "answers.jsonl").write_text('{"image": "5_001.jpg", "text": "real"}\n')
    result = shell("evaluate", "--predictions", "p.jsonl", "--output", "out", *arguments)
    assert result.exit_code == 2 and message in result.stderr, result.stderr
    assert not (tmp_path / "out" / "results.json").exists() and "Traceback" not in result.stderr


def test_foreign_folder_is_not_overwritten(shell, ranked, folders, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.txt").write_text("years of work")
    command = ("evaluate", "--model", ranked, *folders, "--fit", "platt", "--output", tmp_path / "out")
    result = shell(*command, "--save-to", tmp_path / "there")
    assert result.exit_code == 2 and "exists and is not the folder of the model" in result.stderr
    assert not (tmp_path / "out").exists()  # before the work, not after it
