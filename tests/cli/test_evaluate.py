"""`deepfake-detectors evaluate`."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from support.ddvqa_tree import stems, write_tree
from support.golden_files import golden_folder
from support.pictures import random_pictures
from support.tiny_models import tiny_m2f2_det

QUICK = ("--resamples", "20")


@pytest.fixture
def folders(tmp_path):
    """Four real and four fake pictures of two methods."""
    for index, picture in enumerate(random_pictures(8)):
        folder = tmp_path / ("real" if index < 4 else f"fake/{'swap' if index < 6 else 'gan'}")
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{index}.png")
    return ("--real-dir", tmp_path / "real", "--fake-dir", tmp_path / "fake")


def read(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())


def lines_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scored(count: int = 12, **extra) -> list[dict]:
    rows = [
        {"id": f"p{n}", "label": "fake" if n % 2 else "real", "score": (n * 7 % count) / count} for n in range(count)
    ]
    return [{**row, **extra} for row in rows]


def test_folders_end_to_end(shell, model, folders, tmp_path):
    output = tmp_path / "out"
    result = shell("evaluate", "--model", model, *folders, "--output", output, *QUICK)
    assert result.exit_code == 0, result.stderr
    results = read(output)
    assert (results["num_real"], results["num_fake"]) == (4, 4)
    assert {name: row["count"] for name, row in results["per_manipulation"].items()} == {
        "real": 4,
        "gan": 2,
        "swap": 2,
    }
    assert results["protocol"]["name"] == "corrected" and results["defects"] == {}
    rows = lines_of(output)
    assert [row["id"].split("/")[0] for row in rows] == ["real"] * 4 + ["fake"] * 4
    right = sum((row["score"] >= 0.5) == (row["label"] == "fake") for row in rows)
    assert results["metrics"]["accuracy"]["value"] == right / 8
    report = (output / "report.md").read_text()
    for name in ("scores.png", "roc.png", "reliability.png", "manipulations.png"):
        assert f"({name})" in report
        with Image.open(output / name) as picture:
            assert picture.format == "PNG" and min(picture.size) > 200


def test_scores_are_those_of_detect(shell, model, folders, tmp_path):
    shell("evaluate", "--model", model, *folders, "--output", tmp_path / "out", "--batch-size", 3, *QUICK)
    paths = [tmp_path / row["id"] for row in lines_of(tmp_path / "out")]
    told = shell("detect", *paths, "--model", model, "--format", "json").stdout.splitlines()
    assert [json.loads(line)["fake_probability"] for line in told] == pytest.approx(
        [row["score"] for row in lines_of(tmp_path / "out")], abs=1e-6
    )


@pytest.mark.parametrize("side", ["--real-dir", "--fake-dir"])
def test_one_class_is_said_not_scored(shell, model, folders, tmp_path, side):
    folder = folders[folders.index(side) + 1]
    result = shell("evaluate", "--model", model, side, folder, "--output", tmp_path / "out", *QUICK)
    assert result.exit_code == 0, result.stderr
    absent = "fake" if side == "--real-dir" else "real"
    assert f"auc is undefined: the set has no {absent} image" in result.stderr
    results = read(tmp_path / "out")
    assert results["metrics"]["auc"]["value"] is None and results["metrics"]["eer"]["value"] is None
    assert results["metrics"]["accuracy"]["value"] is not None
    assert not (tmp_path / "out" / "roc.png").exists()


def test_data_set_and_its_own_predictions_give_the_same_numbers(shell, model, tmp_path):
    data = write_tree(tmp_path / "ddvqa", stems(range(3)), stems(range(20, 26), "03"), size=56)
    output = tmp_path / "out"
    arguments = ("evaluate", "--model", model, "--dataset", "ddvqa", "--data-dir", data, "--output", output)
    result = shell(*arguments, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert (read(output)["num_real"], read(output)["num_fake"]) == (6, 12)
    assert set(read(output)["per_manipulation"]) == {"real", "Deepfakes", "FaceSwap"}
    # Its own predictions, fed back with and without the set, give the same numbers.
    again = tmp_path / "again"
    for check in ((), ("--dataset", "ddvqa", "--data-dir", data)):
        result = shell("evaluate", "--predictions", output / "predictions.jsonl", *check, "--output", again, *QUICK)
        assert result.exit_code == 0, result.stderr
        assert read(again)["metrics"] == read(output)["metrics"]
    # One picture a video: the published video protocol has nothing to work on.
    result = shell(*arguments, "--protocol", "paper:m2f2_det")
    assert result.exit_code == 2 and "need several frames of a video" in result.stderr
    rows = lines_of(output)
    part = write_rows(tmp_path / "part.jsonl", rows[1:])
    result = shell("evaluate", "--predictions", part, *check, "--output", again)
    assert result.exit_code == 2 and f"1 of {len(rows)} " in result.stderr
    more = write_rows(tmp_path / "more.jsonl", [*rows, {**rows[0], "id": "stranger"}])
    result = shell("evaluate", "--predictions", more, *check, "--output", again)
    assert result.exit_code == 2 and "stranger" in result.stderr


def test_cached_predictions_are_held_against_the_set(shell, tmp_path):
    data = write_tree(tmp_path / "ddvqa", stems(range(3)), stems(range(20, 26), "03"), size=56)
    names = sorted({path.stem for path in data.rglob("test/*.jpg")})
    rows = [
        {"id": f"ddvqa/c40/test/{name}", "label": "real" if name.startswith("5_") else "fake", "score": 0.5}
        for name in names
    ]
    command = ("evaluate", "--dataset", "ddvqa", "--data-dir", data, "--output", tmp_path / "out", *QUICK)
    result = shell(*command, "--predictions", write_rows(tmp_path / "p.jsonl", rows))
    assert result.exit_code == 0, result.stderr
    assert {"real", "Deepfakes"} <= set(read(tmp_path / "out")["per_manipulation"])
    assert read(tmp_path / "out")["bootstrap"]["by"] == "group of shared source material"
    rows[0]["label"] = "real" if rows[0]["label"] == "fake" else "fake"
    result = shell(*command, "--predictions", write_rows(tmp_path / "p.jsonl", rows))
    assert result.exit_code == 2 and rows[0]["id"] in result.stderr and "'fake'" in result.stderr


def test_torn_last_line_is_scored_again_and_nothing_else(shell, model, folders, tmp_path):
    output = tmp_path / "out"
    command = ("evaluate", "--model", model, *folders, "--output", output, "--batch-size", 3, *QUICK)
    assert shell(*command).exit_code == 0
    whole, results = (output / "predictions.jsonl").read_bytes(), (output / "results.json").read_bytes()
    for kept in (len(whole) // 2, 3):
        (output / "results.json").unlink()
        (output / "predictions.jsonl").write_bytes(whole[:kept])
        result = shell(*command)
        assert result.exit_code == 0, result.stderr
        before = whole[:kept].count(b"\n")
        assert (f"{before} of 8 images" in result.stderr) == (before > 0)
        assert (output / "predictions.jsonl").read_bytes() == whole
        assert (output / "results.json").read_bytes() == results


def test_finished_run_is_not_scored_again(shell, model, folders, tmp_path):
    output = tmp_path / "out"
    command = ("evaluate", "--model", model, *folders, "--output", output, *QUICK)
    shell(*command)
    marked = [{**row, "score": 1.0 if row["label"] == "fake" else 0.0} for row in lines_of(output)]
    write_rows(output / "predictions.jsonl", marked)
    assert shell(*command).exit_code == 0
    assert read(output)["metrics"]["accuracy"]["value"] == 1.0  # of what lay there


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_results(shell, model, tmp_path):
    for index, picture in enumerate(random_pictures(8) * 30):
        folder = tmp_path / ("real" if index % 2 else "fake")
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"{index:03d}.png")
    output = tmp_path / "out"
    arguments = ["evaluate", "--model", model, "--real-dir", tmp_path / "real", "--fake-dir", tmp_path / "fake"]
    arguments += ["--batch-size", 4, *QUICK]
    program = "from deepfake_detectors_cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments), "--output", str(output)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    predictions = output / "predictions.jsonl"
    while process.poll() is None and not (predictions.is_file() and predictions.stat().st_size > 2000):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = predictions.read_bytes()
    assert 0 < begun.count(b"\n") < 240, "the run was over before it could be killed"
    assert not (output / "results.json").exists()

    assert shell(*arguments, "--output", output).exit_code == 0
    assert shell(*arguments, "--output", tmp_path / "straight").exit_code == 0
    for name in ("predictions.jsonl", "results.json", "report.md"):
        assert (output / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert predictions.read_bytes().startswith(begun[: begun.rfind(b"\n") + 1])
    assert len({row["id"] for row in lines_of(output)}) == len(lines_of(output)) == 240


def test_folder_of_another_run_is_refused(shell, model, folders, tmp_path):
    output = tmp_path / "out"
    shell("evaluate", "--model", model, *folders, "--output", output, *QUICK)
    before = (output / "predictions.jsonl").read_bytes()
    other = tiny_m2f2_det(tmp_path / "other", seed=1)
    result = shell("evaluate", "--model", other, *folders, "--output", output)
    assert result.exit_code == 2 and "predictions of another run: model differ" in result.stderr
    random_pictures(1)[0].save(tmp_path / "real" / "new.png")
    result = shell("evaluate", "--model", model, *folders, "--output", output)
    assert result.exit_code == 2 and "predictions of another run: set differ" in result.stderr
    assert (output / "predictions.jsonl").read_bytes() == before


def test_results_say_of_which_weights_they_are(shell, model, folders, tmp_path):
    output = tmp_path / "out"
    assert shell("evaluate", "--model", model, *folders, "--output", output, *QUICK).exit_code == 0
    (weights,) = Path(model).glob("*.safetensors")
    assert read(output)["model_type"] == "m2f2_det"
    assert read(output)["weights"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    shell("evaluate", "--predictions", output / "predictions.jsonl", "--output", tmp_path / "cached", *QUICK)
    assert not {"model_type", "weights"} & set(read(tmp_path / "cached"))


def test_changed_pictures_are_not_taken_for_scored(shell, model, folders, tmp_path):
    command = ("evaluate", "--model", model, *folders, "--output", tmp_path / "out", *QUICK)
    assert shell(*command).exit_code == 0
    Image.new("RGB", (61, 61)).save(tmp_path / "real" / "2.png")
    result = shell(*command)
    assert result.exit_code == 2 and "real/2.png" in result.stderr


def test_changed_raw_files_are_not_taken_for_scored(shell, model, tmp_path):
    for name in ("COCO", "SD3"):
        (tmp_path / "sets" / name).mkdir(parents=True)
        random_pictures(1)[0].save(tmp_path / "sets" / name / "1.png")
    data = ("--dataset", "antifakeprompt", "--data-dir", tmp_path / "sets")
    command = ("evaluate", "--model", model, *data, "--output", tmp_path / "out", *QUICK)
    assert shell(*command).exit_code == 0
    assert shell(*command).exit_code == 0
    Image.new("RGB", (61, 61)).save(tmp_path / "sets" / "SD3" / "1.png")
    result = shell(*command)
    assert result.exit_code == 2 and "predictions of another run: set differ" in result.stderr


def test_unreadable_picture_is_named_and_left_out(shell, model, folders, tmp_path):
    (tmp_path / "real" / "broken.png").write_bytes(b"no picture")
    output = tmp_path / "out"
    result = shell("evaluate", "--model", model, *folders, "--output", output, *QUICK)
    assert result.exit_code == 1
    assert "broken.png" in result.stderr and "1 images could not be read" in result.stderr
    assert read(output)["inputs"]["unreadable"] == 1 and read(output)["num_real"] == 4
    random_pictures(1)[0].save(tmp_path / "real" / "broken.png")
    result = shell("evaluate", "--model", model, *folders, "--output", output, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert read(output)["num_real"] == 5


def test_published_answers(shell, tmp_path):
    judgements = write_rows(
        tmp_path / "det.jsonl",
        [
            {"image": "x/5_001.jpg", "text": "<s> The image is real.</s>"},
            {"image": "x/0_001_002.jpg", "text": "<s> Unrealistic, so it is fake.</s>"},
        ],
    )
    explanations = write_rows(
        tmp_path / "exp.jsonl",
        [{"image": f"{s}.jpg", "key": f"{s}_0", "text": f"<s> It is {s}.</s>"} for s in ("5_001", "0_001_002")],
    )
    references = write_rows(
        tmp_path / "ref.jsonl",
        [{f"{s}_0": {"question": "?", "answer": [f"It is {s}."]}} for s in ("5_001", "0_001_002")],
    )
    output = tmp_path / "out"
    paper = ("evaluate", "--protocol", "paper:m2f2_det", "--output", output, *QUICK)
    result = shell(*paper, "--predictions", judgements)
    assert result.exit_code == 0, result.stderr
    assert read(output)["metrics"]["accuracy"]["value"] == 0.5
    assert read(output)["judgement"]["corrected"]["metrics"]["accuracy"]["value"] == 1.0
    assert set(read(output)["defects"]) == {"substring", "skipped_answers"}
    assert "unrealistic" in result.stderr and (output / "manipulations.png").is_file()

    both = ("--predictions", judgements, "--predictions", explanations)
    result = shell(*paper, *both)
    assert result.exit_code == 2 and "--references" in result.stderr
    result = shell(*paper, *both, "--references", references)
    assert result.exit_code == 0, result.stderr
    assert read(output)["metrics"]["ROUGE_L"]["value"] == 1.0 and read(output)["metrics"]["f1"]["value"] == 0.0
    assert "mean_bleu" in read(output)["defects"]

    result = shell("evaluate", *both, "--references", references, "--output", output, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert read(output)["metrics"]["accuracy"]["value"] == 1.0 and "Bleu" not in read(output)["metrics"]
    assert read(output)["defects"] == {}


def test_published_frame_scores(shell, tmp_path):
    folder = golden_folder("m2f2_det") / "metrics"
    expected = json.loads((folder / "expected.json").read_text())
    result = shell(
        *("evaluate", "--protocol", "paper:m2f2_det", "--predictions", folder / "frame_scores.csv"),
        *("--output", tmp_path / "out", *QUICK),
    )
    assert result.exit_code == 0, result.stderr
    results = read(tmp_path / "out")
    assert results["metrics"]["auc"]["value"] == pytest.approx(expected["official_auc"])
    assert results["metrics"]["best_threshold_accuracy"]["value"] == pytest.approx(
        expected["official_best_threshold_accuracy"]
    )
    corrected = results["corrected"]
    assert corrected["metrics"]["auc"]["value"] == pytest.approx(expected["corrected"]["frame_auc"])
    for aggregation, name in (("trimmed", "auc_trimmed"), ("mean", "auc_plain_mean")):
        found = corrected["videos"][aggregation]["metrics"]["auc"]["value"]
        assert found == pytest.approx(expected["corrected"][name])
    assert set(results["defects"]) == {"last_video_dropped", "labels_shifted", "trimmed", "oracle_threshold"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "label": "fake", "score": NaN}', "the score of a is nan"),
        ('{"id": "a", "label": 1, "score": 0.5}', "label of a is 1"),
        ('{"id": "a", "label": "fake"}', "neither a 'score'"),
        ('{"id": "p0", "label": "fake", "score": 0.5}', "p0 already has"),
        ('{"id": "a", "label": "fake", "text": "fake"}', "1 of 13 predictions have no score"),
        ('{"id": ', "line 13: not valid JSON"),
    ],
)
def test_broken_predictions(shell, tmp_path, line, message):
    path = write_rows(tmp_path / "p.jsonl", scored())
    path.write_text(path.read_text() + line + "\n")
    result = shell("evaluate", "--predictions", path, "--output", tmp_path / "out")
    assert result.exit_code == 2 and message in result.stderr, result.stderr
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--predictions"),
        (("--predictions", "none.jsonl"), "none.jsonl"),
        (("--predictions", "p.jsonl", "--protocol", "paper:gpt"), "corrected, paper:m2f2_det"),
        (("--predictions", "p.jsonl", "--model", "m"), "scored without a model"),
        (("--predictions", "p.jsonl", "--protocol", "paper:fakevlm"), "12 of 12 predictions"),
        (("--predictions", "p.jsonl", "--protocol", "paper:m2f2_det"), "video_id"),
        (("--real-dir", "nowhere"), "--real-dir nowhere"),
        (("--real-dir", ".", "--fake-dir", "."), "the same folder"),
        (("--fake-dir", "empty"), "--fake-dir empty"),
        (("--dataset", "imagenet", "--data-dir", "."), "ddvqa"),
        (("--dataset", "ddvqa", "--real-dir", "."), "not both"),
        (("--real-dir", ".", "--references", "p.jsonl", "--explain", "--predictions", "p.jsonl"), "without a model"),
        (("--predictions", "p.jsonl", "--max-new-tokens", "3"), "--explain"),
        (("--predictions", "p.jsonl", "--similarity", "x"), "--references or --explain"),
        (("--predictions", "p.jsonl", "--mask-dir", "."), "--fake-dir"),
        (("--predictions", "p.jsonl", "--twin-masks"), "--dataset"),
        (("--predictions", "p.jsonl", "--references", "r.jsonl"), "12 of 12 predictions have no text"),
        (("--predictions", "picture.jpg"), "picture.jpg"),
        (("--real-dir", ".", "--references", "p.jsonl"), "--explain or --predictions"),
    ],
)
def test_wrong_command(shell, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "p.jsonl", scored())
    (tmp_path / "empty").mkdir()
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8\xff")
    write_rows(tmp_path / "r.jsonl", [{"p0": {"answer": ["It is real."]}}])
    result = shell("evaluate", *arguments, "--output", "out")
    assert result.exit_code == 2, result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_model_without_texts_for_a_protocol_of_texts(shell, model, folders, tmp_path):
    result = shell("evaluate", "--model", model, *folders, "--protocol", "paper:fakevlm", "--output", tmp_path / "out")
    assert result.exit_code == 2 and "M2F2DetForConditionalGeneration" in result.stderr
    assert not (tmp_path / "out").exists()


def test_broken_model_is_not_scored(shell, folders, tmp_path):
    import torch

    from support.tiny_models import m2f2_det, verdict_processor

    broken = m2f2_det()
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "nan")
    verdict_processor().save_pretrained(tmp_path / "nan")
    result = shell("evaluate", "--model", tmp_path / "nan", *folders, "--output", tmp_path / "out")
    assert result.exit_code == 1 and "P(fake) = nan" in result.stderr
    assert not (tmp_path / "out" / "results.json").exists()
