"""Targets that fail, are read, or have strange names: one line, and nothing is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from deepfake_detectors.outputs import lock_beside
from deepfake_detectors_cli.console import printable
from support.tiny_models import tiny_lvlm_dfd

NAMED = "\x1b[31mred\x1b]0;title\x07.png"


def line(result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    (said,) = (text for text in result.stderr.splitlines() if text.startswith("Error: "))
    assert all(word in said for word in words), said
    assert "Traceback" not in result.output


@pytest.mark.parametrize("way", ["itself", "link", "hard"])
def test_a_picture_is_not_overwritten_by_its_rows(shell, model, photos, way):
    picture = photos / "0.png"
    before = picture.read_bytes()
    output = {"itself": picture, "link": photos / "link", "hard": photos / "hard"}[way]
    if way == "link":
        output.symlink_to(picture)
    elif way == "hard":
        os.link(picture, output)
    line(shell("detect", picture, "--model", model, "--output", output), 2, "--output", "0.png")
    assert picture.read_bytes() == before


def test_old_rows_survive_a_failure(shell, model, photos, tmp_path, monkeypatch):
    output = tmp_path / "rows.jsonl"
    output.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("deepfake_detectors.modeling.modeling_m2f2_det.M2F2DetForDeepfakeDetection.forward", fail)
    line(shell("detect", photos, "--model", model, "--output", output), 1, "out of memory")
    assert output.read_text() == "old" and [path.name for path in tmp_path.iterdir() if path.is_file()] == [
        output.name
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk(shell, model, photos):
    line(shell("detect", photos, "--model", model, "--output", "/dev/full"), 1, "No space left")
    assert Path("/dev/full").is_char_device()


def test_a_file_that_another_process_writes(shell, model, photos, tmp_path):
    output = tmp_path / "rows.jsonl"
    with lock_beside(output):
        line(shell("detect", photos, "--model", model, "--output", output), 2, f"process {os.getpid()}")
    assert shell("detect", photos, "--model", model, "--output", output).exit_code == 0


def test_names_that_are_long_or_collide_with_pictures(shell, photos, tmp_path):
    localiser = tiny_lvlm_dfd(tmp_path / "localiser")
    long = photos / f"{'n' * 246}.png"
    (photos / "0.png").rename(long)
    result = shell("detect", long, "--model", localiser, "--save-masks", tmp_path / "masks")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert Image.open(row["mask"]).size == Image.open(row["overlay"]).size == Image.open(long).size

    mask = photos / "a.mask.png"
    Image.open(long).save(photos / "a.png")
    Image.open(long).save(mask)
    before = mask.read_bytes()
    line(shell("detect", photos / "a.png", mask, "--model", localiser, "--save-masks", photos), 1, "a.mask.png")
    assert mask.read_bytes() == before


@pytest.mark.parametrize("text", [NAMED, "a\udcffb", "\x9b2J", "x\u202egnp.exe"])
def test_nothing_commands_the_terminal(text):
    shown = printable(text)
    assert shown.isprintable() and shown != text
    shown.encode("utf-8")
    assert printable("plain ä 漢\n") == "plain ä 漢\n"


def test_names_are_escaped_in_tables_and_errors(shell, model, photos):
    (photos / "0.png").rename(photos / NAMED)
    (photos / "x\x1b[0m.png").write_bytes(b"no picture")
    result = shell("detect", photos, "--model", model, "--format", "table")
    assert result.exit_code == 1 and "\\x1b[31mred" in result.stdout.replace("\n", "")
    assert "\x1b[31m" not in result.output and "\x07" not in result.output
    result = shell("detect", photos / NAMED, "--model", model, "--output", photos / "no\x1b[0m" / "x")
    assert "\x1b" not in result.stderr and result.exit_code == 2


@pytest.mark.slow
def test_names_in_any_encoding_into_a_narrow_pipe(model, photos):
    for name in ("Привет.png".encode(), b"\xff.png"):
        os.link(photos / "0.png", os.fsencode(photos) + b"/" + name)
    words = [sys.executable, "-m", "deepfake_detectors_cli", "detect", str(photos), "--model", model]
    run = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, check=False)
    assert run.returncode == 0, run.stderr
    names = [json.loads(text)["input"] for text in run.stdout.decode("utf-8").splitlines()]
    assert {os.fsencode(Path(name).name) for name in names} >= {"Привет.png".encode(), b"\xff.png"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_stdout_is_one_line(model, photos):
    words = [sys.executable, "-m", "deepfake_detectors_cli", "detect", str(photos), "--model", model]
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False)
    assert run.returncode == 1
    errors = [text for text in run.stderr.decode().splitlines() if "Error" in text or "Traceback" in text]
    assert len(errors) == 1 and errors[0].startswith("Error: "), run.stderr
