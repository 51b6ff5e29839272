"""Detectors on data sets: the numbers are those of `evaluate`, a rerun does what is missing, the page sorts."""

import csv
import json
import re
import shutil
from pathlib import Path

import html5lib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deepfake_detectors import benchmark
from deepfake_detectors.evaluation import scoring
from deepfake_detectors.evaluation.contestants import read_plan
from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.evaluation.scoring import Detector
from deepfake_detectors.outputs import OutputInUseError, folder_lock
from deepfake_detectors_cli import app
from support.tiny_clip_probe import tiny_clip_probe

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking".split()


class Sharp:
    """Answers by how rough a picture is."""

    name = "sharp"

    def __init__(self):
        self.calls = 0

    def predict(self, paths):
        self.calls += 1
        rough = [
            np.abs(np.diff(np.asarray(Image.open(path).convert("L"), dtype=float), axis=1)).mean() for path in paths
        ]
        return [value / (10 + value) for value in rough]


class Failing:
    name = "failing"

    def predict(self, paths):
        raise RuntimeError("no weights")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_clip_probe(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two folders with 8 real and 8 fake pictures each; in the second, the fakes are the larger files."""
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("sets")
    for name, qualities in (("alike", (80, 80)), ("unlike", (40, 95))):
        for label, quality in zip(("real", "fake"), qualities, strict=True):
            (folder / name / label).mkdir(parents=True)
            for number in range(8):
                small = Image.fromarray(generator.integers(0, 256, (7, 9, 3), dtype=np.uint8))
                way = Image.Resampling.BILINEAR if label == "real" else Image.Resampling.NEAREST
                small.resize((72, 56), way).save(folder / name / label / f"{number}.jpg", quality=quality)
    return [folder / "alike", folder / "unlike"]


@pytest.fixture(scope="module")
def scores(sets, tmp_path_factory):
    """A detector that is only known by its scores on one of the sets."""
    file = tmp_path_factory.mktemp("scores") / "theirs.jsonl"
    rows = evaluate(Sharp(), real_dir=sets[0] / "real", fake_dir=sets[0] / "fake", resamples=0).predictions
    file.write_text("".join(row.to_json() + "\n" for row in rows[::-1]))
    return file


OPTIONS = {"resamples": 40, "robustness": "jpeg-30,crop-0.8"}


@pytest.fixture(scope="module")
def run(model, scores, sets, tmp_path_factory):
    output = tmp_path_factory.mktemp("benchmark") / "board"
    theirs = {"name": "theirs", "scores": {"alike": str(scores)}}
    board = benchmark([str(model), Sharp(), theirs], sets, output=output, **OPTIONS)
    board.save(output)
    return board, output


def row_of(board, detector, dataset, variant="as they are"):
    (row,) = [row for row in board.rows if (row.detector, row.dataset, row.variant) == (detector, dataset, variant)]
    return row


def test_numbers_are_those_of_evaluate(run, model, sets):
    board, _ = run
    for folder in sets:
        own = evaluate(model, real_dir=folder / "real", fake_dir=folder / "fake", **OPTIONS)
        row = row_of(board, "tiny", folder.name)
        for name in ("auc", "accuracy", "eer"):
            assert row.metrics[name] == own.metrics[name]
        real = [score.score >= 0.5 for score in own.predictions if score.label == "real"]
        assert row.metrics["false_alarm_rate"]["value"] == pytest.approx(np.mean(real))
        for variant, entry in own.content["robustness"]["variants"].items():
            assert row_of(board, "tiny", folder.name, variant).metrics["auc"] == entry["metrics"]["auc"]
        control = own.content["control"]["metrics"]["bytes_per_pixel_auc"]
        assert row_of(board, "bytes per pixel", folder.name).metrics["auc"] == control


def test_scores_of_others_rank_as_their_detector(run):
    board, _ = run
    assert (
        row_of(board, "theirs", "alike").metrics["auc"]["value"]
        == row_of(board, "sharp", "alike").metrics["auc"]["value"]
    )
    assert not [row for row in board.rows if (row.detector, row.dataset) == ("theirs", "unlike")]
    (same,) = [item for item in board.differences if (item["first"], item["second"]) == ("sharp", "theirs")]
    assert same["auc_difference"] == {"value": 0.0, "low": 0.0, "high": 0.0} and same["pictures"] == 16


def test_controls_see_what_the_files_give_away(run):
    board, _ = run
    assert row_of(board, "bytes per pixel", "unlike").metrics["auc"]["value"] == 1.0
    assert row_of(board, "metadata forest", "unlike").metrics["auc"]["value"] > 0.9
    assert row_of(board, "metadata forest", "unlike").kind == "control"


def test_files_agree(run):
    board, output = run
    data = json.loads((output / "leaderboard.json").read_text())
    lines = list(csv.DictReader((output / "leaderboard.csv").read_text().splitlines()))
    assert len(lines) == len(data["rows"]) == len(board.rows)
    for line, row in zip(lines, data["rows"], strict=True):
        assert (line["detector"], line["dataset"], line["variant"]) == (
            row["detector"],
            row["dataset"],
            row["variant"],
        )
        assert float(line["auc"]) == row["metrics"]["auc"]["value"]
    text = (output / "leaderboard.md").read_text()
    assert f"{row_of(board, 'tiny', 'alike').metrics['auc']['value']:.4f}" in text
    assert all(
        row["seconds_per_1000"] > 0
        for row in data["rows"]
        if row["detector"] == "sharp" and row["variant"] == "as they are"
    )
    assert next(iter(data["mean_auc"])) in ("sharp", "theirs")


def test_a_rerun_judges_nothing_and_gives_the_same_bytes(run, model, scores, sets):
    _, output = run
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    judge = Sharp()
    theirs = {"name": "theirs", "scores": {"alike": str(scores)}}
    benchmark([str(model), judge, theirs], sets, output=output, **OPTIONS).save(output)
    assert judge.calls == 0
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_killed_and_resumed(run, model, scores, sets, tmp_path):
    board, _ = run

    def stop(detector, dataset, done, total):
        if (detector, dataset) == ("sharp", "unlike") and done:
            raise KeyboardInterrupt

    theirs = {"name": "theirs", "scores": {"alike": str(scores)}}
    with pytest.raises(KeyboardInterrupt):
        benchmark([str(model), Sharp(), theirs], sets, output=tmp_path, progress=stop, **OPTIONS)
    again = benchmark([str(model), Sharp(), theirs], sets, output=tmp_path, **OPTIONS)
    assert [row.metrics for row in again.rows] == [row.metrics for row in board.rows]
    assert again.differences == board.differences


def test_a_detector_that_fails_does_not_stop_the_others(sets, tmp_path):
    board = benchmark([Failing(), Sharp()], sets[:1], output=tmp_path, resamples=0, controls=False)
    assert "no weights" in board.failures["failing"] and row_of(board, "sharp", "alike")
    assert any("failing" in text for text in board.warnings())


def test_leaks_are_told_before_the_numbers(sets, tmp_path):
    for label in ("real", "fake"):
        (tmp_path / "seen" / label).mkdir(parents=True)
        content = (sets[0] / label / "0.jpg").read_bytes()
        (tmp_path / "seen" / label / "copy.jpg").write_bytes(content)
    board = benchmark([Sharp()], sets[:1], train=[tmp_path / "seen"], output=tmp_path / "out", resamples=0)
    (same,) = [leak for leak in board.leaks if leak["code"] == "duplicate-bytes-splits"]
    assert same["level"] == "error" and same["details"]["groups"] == 2
    text = board.to_markdown()
    assert text.index("the same bytes") < text.index("| detector |")


def test_leaks_of_a_split_in_a_plan(sets, tmp_path):
    lines = {"train": [], "test": []}
    for label in ("real", "fake"):
        for split, number in (("train", 0), ("test", 1)):
            name = f"{split}-{label}.jpg"
            (tmp_path / name).write_bytes((sets[0] / label / f"{number}.jpg").read_bytes())
            lines[split].append(f"{name},{label}")
    (tmp_path / "seen.csv").write_text("\n".join(["img_path,label", *lines["train"]]) + "\n")
    entry = f"{{name: seen, dataset: {tmp_path / 'seen.csv'}, split: train}}"
    (tmp_path / "plan.yaml").write_text(
        f"detectors: [clip-probe-mini]\ndatasets: [{sets[0]}]\ntrain: [{entry}]\ncontrols: false\n"
    )
    plan = read_plan(tmp_path / "plan.yaml")
    plan["detectors"] = [Sharp()]
    board = benchmark(**plan, output=tmp_path / "out", resamples=0)
    (same,) = [leak for leak in board.leaks if leak["code"] == "duplicate-bytes-splits"]
    assert (same["train"], same["dataset"], same["details"]["groups"]) == ("seen", "alike", 2)
    with pytest.raises(ValueError, match="`train`"):
        benchmark([Sharp()], sets[:1], train=[{"name": "x", "split": "train"}], output=tmp_path / "b", resamples=0)
    with pytest.raises(ValueError, match="splits"):
        benchmark([Sharp()], sets[:1], train=[{"dataset": "x", "splits": "a"}], output=tmp_path / "b", resamples=0)


def test_weights_are_loaded_once(model, sets, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    options = {"resamples": 0, "controls": False}
    detector = Detector(str(copy), "cpu", "auto", 8)
    calls = []
    load = scoring.load_detector

    def counted(*arguments):
        calls.append(arguments)
        return load(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "load_detector", counted)
        board = benchmark([str(copy)], sets, output=tmp_path / "out", device="cpu", **options)
        assert len(calls) == 1 and len(board.rows) == 2
        for folder in sets:
            own = evaluate(detector, real_dir=folder / "real", fake_dir=folder / "fake", resamples=0)
            assert own.metrics["auc"] == row_of(board, "copy", folder.name).metrics["auc"]
            assert own.content["inputs"]["model"] == str(copy)
        assert len(calls) == 2
    with pytest.raises(ValueError, match="`batch_size`"):
        evaluate(detector, real_dir=sets[0] / "real", batch_size=3)
    with pytest.raises(ValueError, match="`predictions`"):
        evaluate(detector, predictions=tmp_path / "p.jsonl")


def test_one_process_at_a_time(sets, tmp_path):
    with folder_lock(tmp_path), pytest.raises(OutputInUseError):
        benchmark([Sharp()], sets[:1], output=tmp_path, resamples=0)


def test_plan_on_the_command_line(model, sets, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"detectors: [{{name: small, model: {model}}}]\n"
        f"datasets:\n  - {{name: pictures, real_dir: {sets[0] / 'real'}, fake_dir: {sets[0] / 'fake'}}}\n"
        "resamples: 0\ncontrols: false\n"
    )
    output = tmp_path / "out"
    result = CliRunner().invoke(app, ["benchmark", str(plan), "--output", str(output)])
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads((output / "leaderboard.json").read_text())["rows"]
    assert (row["detector"], row["dataset"]) == ("small", "pictures")
    assert f"{row['metrics']['auc']['value']:.4f}" in result.stdout


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("detectors: [a", "YAML"),
        ("detector: [a]", "detector"),
        ("detectors: a", "detectors"),
        ("[]", "detectors"),
    ],
)
def test_broken_plans(text, named, tmp_path):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ValueError, match=named):
        read_plan(tmp_path / "plan.yaml")
    assert (
        CliRunner().invoke(app, ["benchmark", str(tmp_path / "plan.yaml"), "--output", str(tmp_path / "o")]).exit_code
        == 2
    )


@pytest.mark.parametrize(
    ("detectors", "named"),
    [
        ([], "detectors"),
        ([Sharp(), Sharp()], "twice"),
        ([object()], "object"),
        ([{"name": "../up", "model": "x"}], "name"),
        ([{"model": "x", "scores": "y"}], "scores"),
        ([{"modell": "x"}], "modell"),
        ([{"predict": "json:loads"}], "predict"),
        ([{"scores": {"nowhere": "y"}}], "nowhere"),
    ],
)
def test_entries_that_cannot_be_understood(detectors, named, sets, tmp_path):
    with pytest.raises(ValueError, match=named):
        benchmark(detectors, sets[:1], output=tmp_path / "out")


def test_page_is_escaped_and_loads_nothing(sets, scores, tmp_path):
    board = benchmark([Sharp()], sets[:1], output=tmp_path, resamples=0, controls=False)
    board.failures["x"] = "<img src=x onerror=alert(1)>"
    page = board.to_html()
    html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    assert "<img" not in page and not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", page)


@pytest.mark.slow
def test_processes_give_the_same(run, model, sets, tmp_path):
    board, _ = run
    alone = benchmark([str(model)], sets[:1], output=tmp_path, processes=True, controls=False, **OPTIONS)
    assert row_of(alone, "tiny", "alike").metrics == row_of(board, "tiny", "alike").metrics


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.is_file(), reason="Debian's chromium is not installed")
def test_browser_sorts_the_page_and_shows_the_report(run) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    board, output = run
    said: list[str] = []
    asked: list[str] = []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((output / "leaderboard.html").as_uri())
        column = "[...document.querySelectorAll('#rows tbody tr')].map(row => row.cells[3].dataset.value)"
        shown = page.evaluate(column)
        expected = sorted((row.metrics["auc"]["value"] for row in board.rows), reverse=True)
        assert sorted(map(float, shown), reverse=True) == expected
        page.click("#rows th:nth-child(4) button")
        assert [float(value) for value in page.evaluate(column)] == expected
        page.click("#rows th:nth-child(4) button")
        assert [float(value) for value in page.evaluate(column)] == expected[::-1]
        page.click("#rows th:nth-child(1) button")
        names = page.evaluate("[...document.querySelectorAll('#rows tbody tr')].map(row => row.cells[0].textContent)")
        assert names == sorted(names, reverse=True)
        # A column with gaps keeps them last, whichever way it is sorted.
        for _ in range(2):
            page.click("#rows th:nth-child(8) button")
            flips = page.evaluate(
                "[...document.querySelectorAll('#rows tbody tr')].map(row => row.cells[7].dataset.value)"
            )
            filled = [value for value in flips if value]
            assert flips[: len(filled)] == filled
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.goto((output / "cells" / "tiny" / "alike" / "report.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            assert page.evaluate("document.images.length") >= 3
        browser.close()
    assert said == []
    assert {address.split(":")[0] for address in asked} <= {"file", "data"}
