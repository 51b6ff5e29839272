"""Every command over every bad file, in each place where it takes one: rows or one line, never a traceback."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from deepfake_detectors_cli import app
from support.case_files import CASES
from support.hostile_folders import HOSTILE_CONFIGS
from support.pictures import random_pictures


def bad_files(folder):
    """Files that are not what their names say, one of each fault; and the cases that once went wrong."""
    folder.mkdir()
    noise = random.Random(0).randbytes(2000)
    good = folder / "good.jpg"
    random_pictures(1)[0].save(good)
    Image.new("1", (9000, 9000)).save(folder / "blank.png")
    contents = {
        "empty.jpg": b"",
        "noise.png": noise,
        "half.jpg": good.read_bytes()[: good.stat().st_size // 2],
        "text.webp": b"hello",
        "eps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "noise.mp4": noise,
        "start.mp4": b"\x00\x00\x00\x20ftypisom" + noise,
        "cp1252.csv": "file,label\nä,real\n".encode("cp1252"),
        "ragged.csv": b"image_id,ground_truth,prediction\na,1\n",
        "utf16.csv": "image_id,ground_truth,prediction\na_1,1,0.5\n".encode("utf-16"),
        "list.jsonl": b"[1]\n",
        "twice.jsonl": b'{"id": "a", "id": "b"}\n',
        "deep.json": b"[" * 200_000,
        "wrong.json": b'{"format": 1, "source": 7, "model": [], "record_sha256": null}',
        "bomb.yaml": b"a: &a [x]\nb: [*a, *a]\n",
        "header.safetensors": b"\xff" * 8 + noise,
        "huge.safetensors": (2**40).to_bytes(8, "little") + b"{}",
        "noise.pth": noise,
        "noise.zip": b"PK\x03\x04" + noise,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    if CASES.is_dir():
        for path in sorted(CASES.rglob("*")):
            if path.is_file() and path.suffix != ".md":
                shutil.copy(path, folder / f"case-{path.name}")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return bad_files(tmp_path_factory.mktemp("bad") / "files")


def ends_well(*arguments, codes=(0, 1, 2)):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input="y\n" * 9)
    what = " ".join(map(str, arguments))
    assert isinstance(result.exception, (SystemExit, type(None))), f"{what}: {result.exception!r}"
    assert "Traceback" not in result.output and "Unexpected" not in result.output, f"{what}: {result.output}"
    assert result.exit_code in codes, f"{what}: {result.output}"
    return result


def test_files_as_pictures(files, model):
    result = ends_well("detect", *files, "--model", model, "--format", "json", codes=(1,))
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == len(files)
    assert all("error" in row or 0 <= row["fake_probability"] <= 1 for row in rows)
    assert "fake_probability" in next(row for row in rows if row["input"].endswith("good.jpg"))


def test_files_as_evidence(files, model, tmp_path):
    pytest.importorskip("av")
    ends_well("examine", *files, "--model", model, "--output", tmp_path / "out", codes=(1,))


@pytest.mark.parametrize("recursive", [[], ["--recursive"]])
def test_a_folder_of_them(files, model, recursive):
    ends_well("detect", files[0].parent, "--model", model, *recursive, codes=(1,))


def test_files_as_everything_else(files, model, tmp_path):
    for file in files:
        for arguments in (
            ("info", "--model", file),
            ("replay", file),
            ("evaluate", "--predictions", file, "--output", tmp_path / "report"),
            ("evaluate", "--predictions", file, "--references", file, "--output", tmp_path / "report"),
            ("evaluate", "--model", file, "--dataset", file, "--output", tmp_path / "report"),
            ("convert", "m2f2_det", "--source", file, "--output", tmp_path / "converted"),
            ("convert", "fakevlm", "--source", file, "--output", tmp_path / "converted"),
            ("convert", "m2f2_det", "--source", file, "--config", file, "--output", tmp_path / "converted"),
            ("merge", "--model", model, "--delta", file, "--output", tmp_path / "merged"),
            ("publish", "--model", file, "--repo", "a/b", "--dry-run", tmp_path / "dry"),
            ("publish", "--model", model, "--repo", "a/b", "--results", file, "--dry-run", tmp_path / "dry"),
            (
                *("publish", "--model", model, "--repo", "a/b", "--without-results", "--facts", file),
                *("--dry-run", tmp_path / "dry"),
            ),
            ("dataset", "lint", file),
            ("dataset", "publish", file, "--repo", "a/b", "--dry-run", tmp_path / "dry"),
        ):
            if "utf16" in file.name and "evaluate" in arguments:
                continue  # a good table, in another encoding
            ends_well(*arguments)


def test_files_as_a_data_set(files, model, tmp_path):
    raw = tmp_path / "raw"
    for label in ("real", "fake"):
        (raw / label).mkdir(parents=True)
        for file in files:
            shutil.copy(file, raw / label / f"{label}-{file.name}")
    ends_well(
        "evaluate",
        "--model",
        model,
        "--real-dir",
        raw / "real",
        "--fake-dir",
        raw / "fake",
        "--output",
        tmp_path / "r",
    )
    for manifest in (None, "cp1252.csv", "ragged.csv", "utf16.csv", "noise.png"):
        if manifest is not None:
            shutil.copy(files[0].parent / manifest, raw / "manifest.csv")
        ends_well("dataset", "check", "image_folder", "--data-dir", raw, "--decode")
        ends_well("dataset", "build", "image_folder", "--data-dir", raw, "--output", tmp_path / "built")
        ends_well("dataset", "lint", "image_folder", "--data-dir", raw)


@pytest.mark.parametrize("kind", ["deep", "config of a list", "huge model"])
def test_damaged_folders_in_the_other_commands(kind, model, tmp_path):
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    (folder / "config.json").write_bytes(HOSTILE_CONFIGS[kind]((folder / "config.json").read_bytes()))
    ends_well("convert", "m2f2_det", "--source", folder, "--output", tmp_path / "c", codes=(1, 2))
    ends_well("merge", "--model", folder, "--delta", folder, "--output", tmp_path / "m", codes=(1, 2))
    ends_well("publish", "--model", folder, "--repo", "a/b", "--dry-run", tmp_path / "d", codes=(1, 2))


@pytest.mark.slow
def test_a_process_prints_no_traceback(files, model):
    command = [sys.executable, "-m", "deepfake_detectors_cli", "detect", *map(str, files), "--model", model]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
