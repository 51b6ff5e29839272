"""The first lines of a report: what they must say, and a detector that goes by the size of files is unmasked."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.evaluation.scoring import DetectorError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """JPEGs whose quality varies; the fakes are mostly saved better, as in many a data set."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for label, qualities in (("real", (20, 70)), ("fake", (60, 98))):
        (folder / label).mkdir()
        for number in range(30):
            small = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            quality = int(generator.integers(*qualities))
            small.resize((64, 48), Image.Resampling.BICUBIC).save(folder / label / f"{number}.jpg", quality=quality)
    return {"real_dir": folder / "real", "fake_dir": folder / "fake"}


class BySize:
    """Answers by bytes per pixel and never looks at a picture."""

    name = "by-size"

    def predict(self, paths):
        sizes = []
        for path in paths:
            content = Path(path).read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                sizes.append(len(content) / (image.width * image.height))
        return [size / (1 + size) for size in sizes]


class ByLabel:
    """Knows the truth from the folder, with an error here and there; ignores the file's size."""

    def predict(self, paths):
        generator = np.random.default_rng([len(path) for path in paths])
        return [float(np.clip(0.5 + 0.2 * ("fake/" in path) + generator.normal() * 0.1, 0, 1)) for path in paths]


class Guess:
    def predict(self, paths):
        return [(sum(path.encode()) * 7919 % 1000) / 1000 for path in paths]


def first_lines(results, tmp_path):
    results.save(tmp_path)
    report = (tmp_path / "report.md").read_text()
    return report[: report.index("## ")]


def test_a_detector_by_file_size_is_unmasked(folders, tmp_path):
    results = evaluate(BySize(), **folders, resamples=200)
    assert results.metrics["auc"]["value"] > 0.8  # it looks good
    lines = first_lines(results, tmp_path)
    assert "rank correlation" in lines and "bytes per pixel alone" in lines
    assert "not better than that" in lines
    assert "60" not in results.content["inputs"] and results.content["inputs"]["model"] == "by-size"
    page = (tmp_path / "report.html").read_text()
    assert page.index("rank correlation") < page.index("<table>")
    control = json.loads((tmp_path / "results.json").read_text())["control"]["metrics"]
    assert control["bytes_per_pixel_correlation"]["value"] == pytest.approx(1.0)
    assert control["auc_above_bytes_per_pixel"]["value"] == pytest.approx(0.0)


def test_cached_scores_by_file_size_are_unmasked_too(folders, tmp_path):
    scored = evaluate(BySize(), **folders, resamples=0).predictions
    file = tmp_path / "scores.jsonl"
    file.write_text("".join(row.to_json() + "\n" for row in scored))
    lines = first_lines(evaluate(predictions=file, **folders, resamples=200), tmp_path / "report")
    assert "rank correlation" in lines


def test_a_detector_that_looks_is_not_accused(folders, tmp_path):
    lines = first_lines(evaluate(ByLabel(), **folders, resamples=200), tmp_path)
    assert "Better than chance" in lines
    assert "rank correlation" not in lines and "bytes per pixel alone" in lines


def test_chance_is_called_chance(folders, tmp_path):
    results = evaluate(Guess(), **folders, resamples=200)
    assert results.metrics["auc"]["low"] <= 0.5 <= results.metrics["auc"]["high"]
    assert "No better than chance" in first_lines(results, tmp_path)
    without = evaluate(Guess(), **folders, resamples=0)
    assert any("without an interval" in sentence for sentence in without.in_words)


def test_one_class_is_said(folders):
    words = evaluate(BySize(), real_dir=folders["real_dir"], resamples=50).in_words
    assert any("unknown" in sentence for sentence in words)
    assert any("of the real images are called fake" in sentence for sentence in words)


@pytest.mark.parametrize("answers", [[2.0], [float("nan")], [], [0.1, 0.2]])
def test_bad_answers_of_a_predictor_are_its_fault(answers, folders):
    class Broken:
        def predict(self, paths):
            return answers

    with pytest.raises(DetectorError, match="Broken"):
        evaluate(Broken(), **folders, batch_size=1)


def test_what_is_not_a_detector_is_refused(folders):
    with pytest.raises(ValueError, match="`model`"):
        evaluate(object(), **folders)
    with pytest.raises(ValueError, match="`model`"):
        evaluate(Guess(), **folders, explain=True)
