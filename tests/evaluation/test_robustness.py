"""The sweep over re-encoded pictures: the same bytes again, resumed after a kill, and numbers that can be checked."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from deepfake_detectors.corruptions import OPERATIONS, ROBUSTNESS_SETS, corruption, corruption_set
from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.hub.model_results import result_parts
from deepfake_detectors.modeling.prefetching import prefetched
from deepfake_detectors_cli import app
from support.tiny_clip_probe import tiny_clip_probe

SWEEP = "jpeg-30,resize-0.5,noise-10"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_clip_probe(tmp_path_factory.mktemp("clip_probe"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Smooth real and rough fake pictures, five of each, and one fake that cannot be read."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for label in ("real", "fake"):
        (folder / label).mkdir()
        for number in range(5):
            small = Image.fromarray(generator.integers(0, 256, (7, 9, 3), dtype=np.uint8))
            small.resize((72, 56), Image.Resampling.BILINEAR if label == "real" else Image.Resampling.NEAREST).save(
                folder / label / f"{number}.png"
            )
    (folder / "fake" / "broken.png").write_bytes(b"no picture")
    return {"real_dir": folder / "real", "fake_dir": folder / "fake"}


@pytest.fixture(scope="module")
def swept(model, folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("swept")
    results = evaluate(model, **folders, robustness=SWEEP, resamples=30, batch_size=4, output=output)
    results.save(output)
    return results, output


def image(side=(48, 40)):
    generator = np.random.default_rng(3)
    return Image.fromarray(generator.integers(0, 256, (side[1], side[0], 3), dtype=np.uint8))


def test_light_is_small_and_every_set_can_be_applied():
    assert len(ROBUSTNESS_SETS["light"]) <= 9
    for name in ROBUSTNESS_SETS:
        for change in corruption_set(name):
            changed = change.apply(image(), 1, "a")
            assert changed.mode == "RGB", change.name
            assert "{" not in change.describe()
    used = {step for name in ROBUSTNESS_SETS for change in corruption_set(name) for step, _ in change.steps}
    assert used == set(OPERATIONS)


def test_what_is_done_to_a_picture():
    assert corruption("resize-0.5").apply(image()).size == (24, 20)
    assert corruption("crop-0.5").apply(image()).size == (24, 20)
    assert corruption("messenger").apply(Image.new("RGB", (3200, 400))).size == (1600, 200)
    assert corruption("messenger").apply(image()).size == (48, 40)  # never enlarged
    assert corruption("screenshot").apply(image()).size == (1080, 900)
    flat = Image.new("RGB", (200, 200), (128, 128, 128))
    noise = np.asarray(corruption("noise-10").apply(flat)).astype(float) - 128
    assert noise.std() == pytest.approx(10, rel=0.02) and abs(noise.mean()) < 0.2
    darker = np.asarray(corruption("gamma-2").apply(flat))
    assert darker.max() == pytest.approx(255 * (128 / 255) ** 2, abs=1)
    errors = [
        np.abs(np.asarray(corruption(f"jpeg-{quality}").apply(image())).astype(int) - np.asarray(image())).mean()
        for quality in (90, 30)
    ]
    assert errors[0] < errors[1]
    one_pixel = Image.new("RGB", (1, 1))
    assert all(change.apply(one_pixel).mode == "RGB" for change in corruption_set("blur-3,resize-0.25,crop-0.6"))


def test_noise_depends_on_picture_and_seed_alone():
    change = corruption("noise-5")
    first = np.asarray(change.apply(image(), 0, "a"))
    assert np.array_equal(first, np.asarray(change.apply(image(), 0, "a")))
    assert not np.array_equal(first, np.asarray(change.apply(image(), 0, "b")))
    assert not np.array_equal(first, np.asarray(change.apply(image(), 1, "a")))


@pytest.mark.parametrize("name", ["jpeg", "jpeg-0", "jpeg-nan", "melt-3", "jpeg-70,jpeg-70", "", "jpeg-70+", "crop-2"])
def test_unknown_corruptions_are_refused(name):
    with pytest.raises(ValueError, match=r"jpeg|crop"):
        corruption_set(name)


def test_noise_is_the_same_in_many_threads():
    change = corruption("noise-10")
    alone = [np.asarray(change.apply(image(), 0, str(key))) for key in range(12)]
    state = torch.get_rng_state()
    for _ in range(5):
        found = prefetched(lambda key: change.apply(image(), 0, str(key)), range(12), 4)
        assert all(np.array_equal(np.asarray(one), other) for one, other in zip(found, alone, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_give_the_same_bytes(swept, model, folders, tmp_path, num_workers):
    _, output = swept
    options = {**folders, "robustness": SWEEP, "resamples": 30, "batch_size": 4, "num_workers": num_workers}
    evaluate(model, **options, output=tmp_path).save(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == (output / "results.json").read_bytes()
    for path in output.rglob("predictions.jsonl"):
        assert (tmp_path / path.relative_to(output)).read_bytes() == path.read_bytes()


def test_the_same_bytes_wherever_it_is_written(swept, model, folders, tmp_path):
    _, output = swept
    again = evaluate(model, **folders, robustness=SWEEP, resamples=30, batch_size=4)
    again.save(tmp_path / "elsewhere")
    for name in ("results.json", "report.md", "report.html", "robustness.png"):
        assert (tmp_path / "elsewhere" / name).read_bytes() == (output / name).read_bytes(), name


def test_killed_and_resumed_gives_the_same(swept, model, folders, tmp_path):
    _, output = swept
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 6:  # in the middle of the first variant
            raise KeyboardInterrupt

    options = {**folders, "robustness": SWEEP, "resamples": 30, "batch_size": 4, "output": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, **options, progress=stop)
    first = tmp_path / "robustness" / "jpeg-30" / "predictions.jsonl"
    assert 0 < len(first.read_bytes().splitlines()) < 10
    first.write_bytes(first.read_bytes()[:-7])  # the kill tore a line
    results = evaluate(model, **options)
    results.save(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == (output / "results.json").read_bytes()
    assert not list(tmp_path.rglob("*.png")) or {path.name for path in tmp_path.rglob("*.png")} == {
        path.name for path in output.rglob("*.png")
    }  # plots alone: no changed picture is stored


def test_numbers_follow_from_the_predictions(swept):
    results, output = swept
    before = {row.id: row.score for row in results.predictions}
    assert len(before) == 10 and len(results.failures) == 1
    for name in SWEEP.split(","):
        file = output / "robustness" / name / "predictions.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert {row["id"] for row in rows} == set(before)
        entry = results.content["robustness"]["variants"][name]
        metrics = {key: value["value"] for key, value in entry["metrics"].items()}
        said = {row["id"]: row["score"] >= 0.5 for row in rows}
        assert metrics["accuracy"] == pytest.approx(
            np.mean([said[row["id"]] == (row["label"] == "fake") for row in rows])
        )
        assert metrics["flip_rate"] == pytest.approx(
            np.mean([said[id] != (score >= 0.5) for id, score in before.items()])
        )
        real = [said[row["id"]] for row in rows if row["label"] == "real"]
        assert metrics["false_alarm_rate"] == pytest.approx(np.mean(real))
        pairs = [
            (a["score"] > b["score"]) + 0.5 * (a["score"] == b["score"])
            for a in rows
            for b in rows
            if a["label"] == "fake" and b["label"] == "real"
        ]
        assert metrics["auc"] == pytest.approx(np.mean(pairs))
        assert metrics["auc_difference"] == pytest.approx(metrics["auc"] - results.metrics["auc"]["value"])
        assert entry["pictures"] == 10
        # The model saw other pixels.
        assert any(row["score"] != before[row["id"]] for row in rows)


def test_another_seed_is_another_run(swept, model, folders):
    _, output = swept
    with pytest.raises(ValueError, match="another run"):
        evaluate(model, **folders, robustness="noise-10", resamples=0, batch_size=4, seed=1, output=output)


def test_command(model, folders, tmp_path):
    flags = [text for name, path in folders.items() for text in (f"--{name.replace('_', '-')}", str(path))]
    command = ["evaluate", "--model", str(model), *flags, "--output", str(tmp_path), "--resamples", "0"]
    result = CliRunner().invoke(app, [*command, "--robustness", "flip"])
    assert result.exit_code == 1, result.stderr  # of the picture that cannot be read
    assert list(json.loads((tmp_path / "results.json").read_text())["robustness"]["variants"]) == ["flip"]
    wrong = CliRunner().invoke(app, [*command, "--robustness", "strong"])
    assert wrong.exit_code == 2 and "light" in wrong.stderr


def test_predictions_cannot_be_changed(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"id": "a", "label": "real", "score": 0.5}\n')
    with pytest.raises(ValueError, match="`robustness`"):
        evaluate(predictions=tmp_path / "p.jsonl", robustness="light")


def test_report_has_table_and_plot(swept):
    _, output = swept
    report = (output / "report.md").read_text()
    assert "| jpeg-30 |" in report and "robustness.png" in report
    assert Path(output / "robustness.png").stat().st_size > 5000


def test_the_card_has_the_table(swept):
    results, _ = swept
    (part,) = [part for part in result_parts(results.content) if part["subject"] is None]
    table = part["tables"]["after"]
    assert [row[0] for row in table["rows"]] == SWEEP.split(",")
    auc = results.content["robustness"]["variants"]["jpeg-30"]["metrics"]["auc"]["value"]
    assert table["rows"][0][1 + table["columns"].index("auc")] == f"{auc:.3f}"
