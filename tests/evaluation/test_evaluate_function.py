"""`evaluate()` as a library function: the same files as the command, typed errors, nothing printed."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from deepfake_detectors.evaluation.evaluate import evaluate
from deepfake_detectors.evaluation.scoring import DetectorError
from deepfake_detectors.outputs import OutputInUseError, folder_lock
from deepfake_detectors_cli import app
from support.ddvqa_tree import stems, write_tree
from support.folder_tree import save
from support.pictures import random_pictures
from support.tiny_models import m2f2_det, tiny_lvlm_dfd, tiny_m2f2_det, verdict_processor


@pytest.fixture(scope="module")
def localising(tmp_path_factory):
    return tiny_lvlm_dfd(tmp_path_factory.mktemp("lvlm_dfd"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_m2f2_det(tmp_path_factory.mktemp("m2f2_det"))


@pytest.fixture
def folders(tmp_path):
    """Three real and three fake pictures with masks."""
    drawn = np.zeros((12, 16), dtype=np.uint8)
    drawn[:6] = 255
    for number in range(3):
        save(tmp_path / "real" / f"{number}.png")
        save(tmp_path / "fake" / "swap" / f"{number}.png")
        mask = tmp_path / "masks" / "swap" / f"{number}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn).save(mask)
    return {"real_dir": tmp_path / "real", "fake_dir": tmp_path / "fake", "mask_dir": tmp_path / "masks"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_command_and_function_give_the_same_bytes(localising, folders, tmp_path, capsys):
    flags = [text for name, path in folders.items() for text in (f"--{name.replace('_', '-')}", str(path))]
    command = ["evaluate", "--model", str(localising), *flags, "--batch-size", "2", "--resamples", "20"]
    result = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "command")])
    assert result.exit_code == 0, result.stderr
    capsys.readouterr()
    options = {**folders, "batch_size": 2, "resamples": 20}
    evaluate(localising, **options, output=tmp_path / "written").save(tmp_path / "written")
    evaluate(localising, **options).save(tmp_path / "kept")
    assert capsys.readouterr().out == ""
    expected = contents(tmp_path / "command")
    assert {"results.json", "report.md", "predictions.jsonl", "localisation.jsonl", "roc.png"} <= set(expected)
    assert contents(tmp_path / "written") == expected
    assert contents(tmp_path / "kept") == expected
    # What was saved from memory is a finished run, which the command takes up.
    again = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "kept")])
    assert again.exit_code == 0 and "6 of 6 images" in again.stderr
    assert contents(tmp_path / "kept") == expected


def test_results_are_data(localising, folders):
    results = evaluate(localising, **folders, resamples=0)
    assert results.metrics is results.content["metrics"]
    assert [row.label for row in results.predictions] == ["real"] * 3 + ["fake"] * 3
    right = sum((row.score >= 0.5) == (row.label == "fake") for row in results.predictions)
    table = {(row["section"], row["metric"]): row["value"] for row in results.summary()}
    assert table["results", "accuracy"] == right / 6
    assert {section for section, _ in table} == {"results", "localisation", "control"}


def test_a_fit_moves_the_predictions_and_not_the_file(model, folders, tmp_path):
    generator = np.random.default_rng(0)
    for label, level in (("real", 1), ("fake", 2)):
        for number in range(12):
            pixels = generator.integers(0, 256, (56, 56, 3)) // level
            save_to = tmp_path / "many" / label / f"{number}.png"
            save_to.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(save_to)
    sides = {"real_dir": tmp_path / "many" / "real", "fake_dir": tmp_path / "many" / "fake", "resamples": 0}
    plain, fitted = evaluate(model, **sides), evaluate(model, **sides, fit="keep", threshold="eer")
    assert fitted.predictions == plain.predictions
    point = fitted.content["calibration"]["operating_points"]["eer"]["threshold"]["value"]
    assert fitted.threshold == fitted.content["threshold"] == point


def test_progress_counts_what_was_done_before(model, folders, tmp_path):
    told = []
    options = {"real_dir": folders["real_dir"], "fake_dir": folders["fake_dir"], "output": tmp_path / "out"}
    evaluate(model, **options, batch_size=2, resamples=0, progress=lambda *counts: told.append(counts))
    assert told == [(0, 6), (2, 6), (4, 6), (6, 6)]
    file = tmp_path / "out" / "predictions.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))
    told.clear()
    evaluate(model, **options, batch_size=2, resamples=0, progress=lambda *counts: told.append(counts))
    assert told == [(2, 6), (4, 6), (6, 6)]


def test_batch_size_does_not_matter(model, tmp_path):
    data = write_tree(tmp_path / "ddvqa", stems(range(2)), stems(range(20, 23), "03"), size=56)
    found = [evaluate(model, dataset="ddvqa", data_dir=data, batch_size=size, resamples=20).metrics for size in (1, 7)]
    for name, entry in found[0].items():
        assert found[1][name] == pytest.approx(entry), name
    with pytest.raises(ValueError, match=r"'dev'.*train, test"):
        evaluate(model, dataset="ddvqa", data_dir=data, split="dev")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_numbers_do_not_depend_on_workers(localising, folders, tmp_path, num_workers):
    (folders["real_dir"] / "broken.jpg").write_bytes(b"not a picture")
    options = {**folders, "batch_size": 2, "resamples": 20}
    alone = evaluate(localising, **options, output=tmp_path / "alone")
    # Begun by one, ended by several, where one prediction is missing in the middle.
    lines = (tmp_path / "alone" / "predictions.jsonl").read_text().splitlines(keepends=True)
    with_workers = tmp_path / "with"
    shutil.copytree(tmp_path / "alone", with_workers)
    (with_workers / "predictions.jsonl").write_text("".join(lines[:2] + lines[3:]))
    flags = [text for name, path in folders.items() for text in (f"--{name.replace('_', '-')}", str(path))]
    command = ["evaluate", "--model", str(localising), *flags, "--batch-size", "2", "--resamples", "20"]
    workers = ["--num-workers", str(num_workers), "--output"]
    again = CliRunner().invoke(app, [*command, *workers, str(with_workers)])
    fresh = CliRunner().invoke(app, [*command, *workers, str(tmp_path / "fresh")])
    assert again.exit_code == fresh.exit_code == 1 and "broken.jpg" in fresh.stderr
    assert len(alone.failures) == 1 and len(lines) == 6
    predictions = (tmp_path / "fresh" / "predictions.jsonl").read_text()
    assert predictions.splitlines(keepends=True) == lines
    assert sorted((with_workers / "predictions.jsonl").read_text().splitlines(keepends=True)) == sorted(lines)


def test_workers_are_of_models_that_run_here(folders, tmp_path):
    class Judge:
        def predict(self, paths):
            return [0.5 for _ in paths]

    with pytest.raises(ValueError, match="num_workers"):
        evaluate(Judge(), **folders, num_workers=2)
    with pytest.raises(ValueError, match="num_workers"):
        evaluate(**folders, num_workers=-1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "predictions"),
        ({"predictions": "p.jsonl", "explain": True}, "explain"),
        ({"dataset": "ddvqa", "real_dir": "."}, "dataset"),
        ({"real_dir": ".", "twin_masks": True}, "twin_masks"),
        ({"real_dir": ".", "similarity": "x"}, "similarity"),
        ({"real_dir": ".", "mask_dir": "."}, "mask_dir"),
        ({"real_dir": ".", "save_to": "x"}, "save_to"),
        ({"real_dir": ".", "fit": "platt", "fit_split": "train"}, "fit_split"),
        ({"real_dir": ".", "max_new_tokens": 3}, "max_new_tokens"),
        ({"real_dir": ".", "resamples": -1}, "resamples"),
        ({"real_dir": ".", "batch_size": 0}, "batch_size"),
        ({"real_dir": ".", "threshold": 1.5}, "threshold"),
        ({"real_dir": ".", "threshold": "strict"}, "threshold"),
        ({"real_dir": ".", "output": "p.jsonl"}, "output"),
        ({"real_dir": ".", "protocol": "paper:gpt"}, "protocol"),
    ],
)
def test_errors_name_parameters(options, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "1.png")
    (tmp_path / "p.jsonl").write_text("")
    with pytest.raises(ValueError, match=f"`{named}`") as caught:
        evaluate(**options)
    assert "--" not in str(caught.value)


def test_a_detector_that_fails_is_not_an_input_error(folders, tmp_path):
    broken = m2f2_det()
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "nan")
    verdict_processor().save_pretrained(tmp_path / "nan")
    with pytest.raises(DetectorError, match="nan"):
        evaluate(tmp_path / "nan", real_dir=folders["real_dir"])


def test_nothing_readable_is_said_with_a_reason(model, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "broken.png").write_bytes(b"no picture")
    random_pictures(1)[0].save(tmp_path / "other.png")
    with pytest.raises(ValueError, match=r"real/broken\.png"):
        evaluate(model, real_dir=tmp_path / "real")


def test_a_folder_that_another_process_fills(model, folders, tmp_path):
    given = {"real_dir": folders["real_dir"], "fake_dir": folders["fake_dir"], "resamples": 0}
    with folder_lock(tmp_path / "out"), pytest.raises(OutputInUseError, match=f"process {os.getpid()}"):
        evaluate(model, **given, output=tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.jsonl").exists()
    results = evaluate(model, **given, output=tmp_path / "out")
    with folder_lock(tmp_path / "out"), pytest.raises(OutputInUseError):
        results.save(tmp_path / "out")
    results.save(tmp_path / "out")
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["results.json", "report.md"])
def test_what_is_read_is_not_written_over(folders, tmp_path, name):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "label": "real", "score": 0.1}\n{"id": "b", "label": "fake", "score": 0.9}\n')
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(rows)
    with pytest.raises(ValueError, match="also an input"):
        evaluate(predictions=rows, output=tmp_path / "out")
    with pytest.raises(ValueError, match="also an input"):
        evaluate(real_dir=folders["real_dir"], fake_dir=folders["fake_dir"], output=folders["real_dir"])


def test_names_stay_text_in_the_report(tmp_path):
    rows = [
        f'{{"id": "{number}", "label": "{label}", "score": 0.{number}, "manipulation": "<script>x|y"}}'
        for number, label in enumerate(["real", "fake", "fake", "real"], start=1)
    ]
    (tmp_path / "<script>.jsonl").write_text("\n".join(rows))
    evaluate(predictions=tmp_path / "<script>.jsonl", resamples=0).save(tmp_path / "out")
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in report and "&lt;script&gt;" in report


def test_a_torn_note_of_the_run_is_one_clear_error(model, folders, tmp_path):
    given = {"real_dir": folders["real_dir"], "fake_dir": folders["fake_dir"], "resamples": 0}
    evaluate(model, **given, output=tmp_path / "out")
    (tmp_path / "out" / "run.json").write_text('{"model": {')
    with pytest.raises(ValueError, match=r"run\.json.*remove this folder"):
        evaluate(model, **given, output=tmp_path / "out")


def test_a_table_stands_in_place_of_folders(model, folders, tmp_path):
    table = tmp_path / "pictures.csv"
    lines = [f"real/{n}.png,yes" for n in range(3)] + [f"fake/swap/{n}.png,no" for n in range(3)]
    table.write_text("\n".join(["img_path,label", *lines]))
    by_table = evaluate(model, dataset=table, resamples=0)
    by_folder = evaluate(model, real_dir=folders["real_dir"], fake_dir=folders["fake_dir"], resamples=0)
    assert by_table.metrics == by_folder.metrics
    with pytest.raises(ValueError, match=r"pictures\.csv .*`data_dir`"):
        evaluate(model, dataset=table, data_dir=tmp_path)
