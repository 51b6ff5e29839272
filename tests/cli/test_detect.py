"""`detect` as a user types it."""

import json
import os
import pty
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor, BertConfig

from deepfake_detectors.checkpoints import built_in_path
from deepfake_detectors.pipelines import pipeline

COMMAND = str(Path(sysconfig.get_path("scripts")) / "deepfake-detectors")


def rows(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def names(result) -> list[str]:
    return [row["input"] for row in rows(result)]


def assert_one_clear_line(result, *words: str) -> None:
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    for word in words:
        assert word in lines[0]


# ---- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_rows_are_those_of_the_pipeline(shell, model: str, photos: Path, batch_size: int) -> None:
    files = [str(photos / name) for name in ("2.webp", "0.png", "1.JPG")]
    result = shell("detect", *files, "--model", model, "--batch-size", batch_size)
    assert result.exit_code == 0
    assert names(result) == files
    for row, expected in zip(rows(result), pipeline(model=model)(files), strict=True):
        assert row.pop("input") in files
        del expected["mask"]
        probability = expected.pop("fake_probability"), expected.pop("score")
        assert (row.pop("fake_probability"), row.pop("score")) == pytest.approx(probability, abs=1e-5)
        assert row == expected


def test_rows_do_not_depend_on_workers(shell, model: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "broken.jpg").write_bytes(b"not a picture")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    alone = shell("detect", photos, "--model", model)
    assert "OMP_WAIT_POLICY" not in os.environ
    for number in (1, 2):
        done = shell("detect", photos, "--model", model, "--num-workers", number)
        assert done.exit_code == alone.exit_code == 1 and done.stdout == alone.stdout
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    shell("detect", photos / "0.png", "--model", model, "--num-workers", 2)
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_number_is_explained_on_stderr(shell, model: str, photos: Path) -> None:
    result = shell("detect", photos / "0.png", "-m", model, "--threshold", "0.25")
    assert "P(fake)" in result.stderr and "0.25" in result.stderr
    assert "P(fake)" not in result.stdout
    quiet = shell("detect", photos / "0.png", "-m", model, "--quiet")
    assert (quiet.exit_code, quiet.stderr) == (0, "")


def test_a_folder_by_name_without_what_is_no_picture(shell, model: str, photos: Path) -> None:
    result = shell("detect", photos, "-m", model)
    assert result.exit_code == 0
    assert names(result) == [str(photos / name) for name in ("0.png", "1.JPG", "2.webp")]
    assert "Skipped 1 files that are not images." in result.stderr


def test_recursive(shell, model: str, photos: Path) -> None:
    result = shell("detect", photos, "-m", model, "--recursive")
    assert names(result) == [str(photos / name) for name in ("0.png", "1.JPG", "2.webp", "deeper/3.png")]


def test_globs_and_several_inputs(shell, model: str, photos: Path) -> None:
    (photos / "[x].png").write_bytes((photos / "0.png").read_bytes())
    result = shell("detect", photos / "**" / "*.png", photos / "2.webp", photos / "[x].png", "-m", model)
    found = ["0.png", "[x].png", "deeper/3.png", "2.webp", "[x].png"]
    assert result.exit_code == 0
    assert names(result) == [str(photos / name) for name in found]


@pytest.mark.parametrize(
    ("threshold", "value", "label"), [("0", 0.0, "fake"), ("1", 1.0, "real"), ("strict", 0.01, "fake")]
)
def test_threshold(shell, model: str, photos: Path, threshold: str, value: float, label: str) -> None:
    (row,) = rows(shell("detect", photos / "0.png", "-m", model, "--threshold", threshold))
    assert (row["threshold"], row["label"]) == (value, label)


def test_table(shell, model: str, photos: Path) -> None:
    (photos / "broken.png").write_text("text")
    result = shell("detect", photos, "-m", model, "--format", "table")
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["image", "label", "P(fake)"]
    assert sum(line.split()[-1].startswith("0.") for line in lines) == 3
    assert str(photos / "broken.png") in "".join(result.stdout.split())


def test_output_file(shell, model: str, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "verdicts.jsonl"
    output.write_text("old")
    result = shell("detect", photos, "-m", model, "--output", output)
    assert result.stdout == ""
    assert [json.loads(line)["input"] for line in output.read_text().splitlines()] == [
        str(photos / name) for name in ("0.png", "1.JPG", "2.webp")
    ]


def test_precision(shell, model: str, photos: Path) -> None:
    result = shell("detect", photos / "0.png", "-m", model, "--dtype", "bfloat16", "--device", "cpu")
    (low,), (full,) = rows(result), rows(shell("detect", photos / "0.png", "-m", model))
    assert low["fake_probability"] == pytest.approx(full["fake_probability"], abs=0.03)
    assert low["fake_probability"] != full["fake_probability"]


# ---- inputs that cannot be read -------------------------------------------------------------------------------------


def test_a_broken_file_does_not_stop_the_others(shell, model: str, photos: Path) -> None:
    (photos / "1a_broken.jpg").write_bytes((photos / "1.JPG").read_bytes()[:700])
    (photos / "1b_empty.jpg").touch()
    result = shell("detect", photos, "-m", model, "--batch-size", 2)
    assert result.exit_code == 1
    assert [("label" in row, "error" in row) for row in rows(result)] == [
        (True, False), (True, False), (False, True), (False, True), (True, False),
    ]  # fmt: skip
    assert str(photos / "1a_broken.jpg") in rows(result)[2]["error"]
    assert "2 of 5" in result.stderr.splitlines()[-1]


def test_missing_things(shell, model: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (photos / "only" / "folders").mkdir(parents=True)
    given = [photos / "0.png", tmp_path / "absent.jpg", tmp_path / "*.bmp", tmp_path / "bare", photos / "only"]
    result = shell("detect", *given, "-m", model)
    assert result.exit_code == 1
    errors = {row["input"]: row["error"] for row in rows(result) if "error" in row}
    assert list(errors) == [str(name) for name in given[1:]]
    for name, error in errors.items():
        assert name in error
    assert "--recursive" in errors[str(photos / "only")]


def test_an_unreachable_url(shell, model: str) -> None:
    result = shell("detect", "http://127.0.0.1:9/face.jpg", "-m", model)
    assert result.exit_code == 1
    assert "http://127.0.0.1:9/face.jpg" in rows(result)[0]["error"]


@pytest.mark.slow
def test_standard_input(shell, model: str, photos: Path) -> None:
    content = (photos / "0.png").read_bytes()
    done = subprocess.run([COMMAND, "detect", "-", "-q", "-m", model], input=content, capture_output=True, check=True)
    (piped,), (named,) = [json.loads(done.stdout)], rows(shell("detect", photos / "0.png", "-m", model))
    assert piped.pop("input") == "-" and named.pop("input")
    assert piped == pytest.approx(named, abs=1e-6)


# ---- a wrong command ------------------------------------------------------------------------------------------------


def test_no_inputs(shell) -> None:
    assert shell("detect").exit_code == 2


@pytest.mark.parametrize(
    ("threshold", "message"),
    [("eer", "fpr@1%, strict"), ("1.5", "1.5"), ("nan", "nan")],
)
def test_wrong_threshold(shell, model: str, photos: Path, threshold: str, message: str) -> None:
    assert_one_clear_line(shell("detect", photos, "-m", model, "--threshold", threshold), "--threshold", message)


def test_missing_model_folder(shell, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "absent"
    assert_one_clear_line(shell("detect", photos, "-m", folder), str(folder))


def test_model_folder_without_a_model(shell, photos: Path) -> None:
    assert_one_clear_line(shell("detect", photos, "-m", photos), str(photos), "config.json")


def test_official_folder(shell, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "current_model_180.pth").write_bytes(b"x")
    for given in (tmp_path, tmp_path / "current_model_180.pth"):
        assert_one_clear_line(
            shell("detect", photos, "-m", given),
            f"deepfake-detectors convert FAMILY --source {tmp_path / 'current_model_180.pth'} --output DIR",
        )


def test_model_of_another_kind(shell, photos: Path, tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    assert_one_clear_line(shell("detect", photos, "-m", tmp_path), "'bert'", "m2f2_det")


@pytest.mark.parametrize(("file", "word"), [("config.json", "config.json"), ("model.safetensors", "header")])
def test_damaged_model(shell, model: str, photos: Path, tmp_path: Path, file: str, word: str) -> None:
    for name in ("config.json", "model.safetensors", "processor_config.json"):
        (tmp_path / name).write_bytes((Path(model) / name).read_bytes())
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:100])
    assert_one_clear_line(shell("detect", photos, "-m", tmp_path), str(tmp_path), word)


def test_model_without_its_processor(shell, model: str, photos: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((Path(model) / name).read_bytes())
    assert_one_clear_line(shell("detect", photos, "-m", tmp_path), "processor")


@pytest.mark.parametrize("device", ["nonsense", "mtia"])
def test_wrong_device(shell, model: str, photos: Path, device: str) -> None:
    assert_one_clear_line(shell("detect", photos, "-m", model, "--device", device), "--device", device)


def test_a_model_that_answers_nan(shell, model: str, photos: Path, tmp_path: Path) -> None:
    detector = AutoModel.from_pretrained(model)
    with torch.no_grad():
        detector.detector.classifier.bias.fill_(float("nan"))
    detector.save_pretrained(tmp_path / "broken")
    AutoProcessor.from_pretrained(model).save_pretrained(tmp_path / "broken")
    result = shell("detect", photos / "0.png", "-m", tmp_path / "broken")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ") and "nan" in result.stderr


def test_output_that_is_a_folder(shell, model: str, photos: Path) -> None:
    assert_one_clear_line(shell("detect", photos, "-m", model, "--output", photos), "--output", str(photos))


def test_output_in_a_missing_folder(shell, model: str, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "absent" / "rows.jsonl"
    assert_one_clear_line(shell("detect", photos, "-m", model, "--output", output), "--output")


# ---- the real command -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_in_a_pipe(model: str, photos: Path) -> None:
    (photos / "broken.png").write_text("text")
    done = subprocess.run(
        [COMMAND, "detect", "photos", "-m", model], capture_output=True, text=True, cwd=photos.parent, check=False
    )
    assert done.returncode == 1
    assert [json.loads(line)["input"] for line in done.stdout.splitlines()] == [
        "photos/0.png", "photos/1.JPG", "photos/2.webp", "photos/broken.png",
    ]  # fmt: skip
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_on_a_terminal(model: str, photos: Path) -> None:
    """A table on the terminal, and progress that leaves nothing behind."""
    for index in range(25):
        (photos / f"more{index:02}.png").write_bytes((photos / "0.png").read_bytes())
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [COMMAND, "detect", "photos", "-m", model], stdout=theirs, stderr=theirs, cwd=photos.parent, env=environment
    )
    os.close(theirs)
    written = bytearray()
    try:
        while chunk := os.read(ours, 4096):
            written += chunk
    except OSError:  # how Linux reports that the other end was closed
        pass
    finally:
        os.close(ours)
    assert process.wait() == 0
    text = written.decode()
    assert "Scoring" in text and "{" not in text
    assert text.count("photos/more") == 25


@pytest.mark.slow
def test_a_reader_that_leaves_early(model: str, photos: Path) -> None:
    done = subprocess.run(
        f"'{COMMAND}' detect photos -m '{model}' --batch-size 1 | head -n 1",
        shell=True, capture_output=True, text=True, cwd=photos.parent, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout)["input"] == "photos/0.png"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_built_in_checkpoint_judges_and_explains_without_remarks_of_libraries(photos: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [COMMAND, "detect", "photos", "--model", "m2f2-det-mini", "--explain"],
        capture_output=True, text=True, cwd=photos.parent, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3 and all(row["explanation"] for row in rows)
    terms, skipped, meaning = done.stderr.splitlines()
    assert terms == json.loads((built_in_path("m2f2-det-mini") / "config.json").read_text())["license_notice"]
    assert "1 files" in skipped and "P(fake)" in meaning


# ---- the door -------------------------------------------------------------------------------------------------------


def test_what_a_folder_hides_is_a_row_and_the_rest_is_scored(shell, model: str, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / "good.png").write_bytes((photos / "0.png").read_bytes())
    (folder / "self").symlink_to(".")
    (folder / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.jpg")
    result = shell("detect", folder, "-m", model, "--recursive")
    assert result.exit_code == 1
    found = {Path(row["input"]).name: row for row in rows(result)}
    assert found.keys() == {"good.png", "gone.png", "pipe.jpg"}
    assert {name for name, row in found.items() if "error" in row} == {"gone.png", "pipe.jpg"}


def test_a_pipe_that_is_named_is_refused_at_once(shell, model: str, photos: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    result = shell("detect", tmp_path / "pipe.jpg", photos / "0.png", "-m", model)
    assert result.exit_code == 1
    assert ["error" in row for row in rows(result)] == [True, False]


def test_the_budget_and_private_hosts_are_options(shell, model: str, photos: Path) -> None:
    result = shell("detect", photos / "0.png", "-m", model, "--max-pixels", "10")
    assert result.exit_code == 1 and "max_pixels" in rows(result)[0]["error"].replace("--max-pixels", "max_pixels")
    refused = rows(shell("detect", "http://127.0.0.1:9/face.jpg", "-m", model))[0]["error"]
    tried = rows(shell("detect", "http://127.0.0.1:9/face.jpg", "-m", model, "--allow-private-hosts"))[0]["error"]
    assert "127.0.0.1" in refused and refused != tried


def test_workers_change_nothing(shell, photos, model) -> None:
    (photos / "broken.png").write_bytes(b"broken")
    words = ("detect", photos, "--recursive", "--model", model, "--batch-size", 2, "--device", "cpu")
    alone, together = (shell(*words, "--num-workers", count) for count in (0, 2))
    rows = [json.loads(line) for line in alone.stdout.splitlines()]
    assert rows == [json.loads(line) for line in together.stdout.splitlines()] and len(rows) == 5
    assert alone.exit_code == together.exit_code == 1
