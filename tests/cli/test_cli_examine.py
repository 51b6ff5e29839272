import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.examination_files import noise_clip
from support.pictures import random_pictures
from support.tiny_models import tiny_fakevlm


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_fakevlm(tmp_path_factory.mktemp("examined") / "tiny"))


def test_files_folders_and_errors(detector: str, photos: Path, tmp_path: Path, shell: Callable[..., Any]) -> None:
    pytest.importorskip("av")
    noise_clip(photos / "clip.mp4")
    done = shell(
        "examine", photos, tmp_path / "absent.png", "-m", detector, "--no-checks", "--frames", 4, "--output",
        tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["input"]).name for row in rows] == ["0.png", "1.JPG", "2.webp", "clip.mp4", "absent.png"]
    assert "error" in rows[-1] and "absent.png" in rows[-1]["error"]
    assert [row["kind"] for row in rows[:-1]] == ["picture"] * 3 + ["video"]
    for row in rows[:-1]:
        folder = tmp_path / "out" / Path(row["input"]).stem
        record = json.loads((folder / "examination.json").read_text(encoding="utf-8"))
        assert record["fake_probability"] == row["fake_probability"]
        assert row["decision"] is None and row["sheet"] == str(folder / "sheet.html")
        assert (folder / "sheet.html").is_file()
    assert record["options"]["frames"] == 4 and record["options"]["checks"] is False


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_same_with_workers(
    detector: str, photos: Path, tmp_path: Path, shell: Callable[..., Any], num_workers: int
) -> None:
    pytest.importorskip("av")
    noise_clip(photos / "clip.mp4")
    (photos / "broken.jpg").write_bytes(b"not a picture")
    common = ("-m", detector, "--no-checks", "--frames", 6, "--output")
    for files in ((photos,), (photos / "clip.mp4",)):  # several files at once; several frames at once
        found = []
        for number in (0, num_workers):
            output = tmp_path / f"{len(files[0].name)}-{number}"
            done = shell("examine", *files, *common, output, "--num-workers", number)
            assert done.exit_code == (1 if files[0] == photos else 0)
            rows = [json.loads(line) for line in done.stdout.splitlines()]
            for row in rows:
                row.pop("sheet", None)
            records = [
                json.loads(path.read_text(encoding="utf-8")) for path in sorted(output.glob("*/examination.json"))
            ]
            assert len(records) == (4 if files[0] == photos else 1)
            assert [Path(row["input"]).name for row in rows if "error" in row] == (
                ["broken.jpg"] if files[0] == photos else []
            )
            found.append(
                (rows, [{key: record[key] for key in ("frames", "readings", "source")} for record in records])
            )
        assert found[0] == found[1]


def test_files_of_one_name_get_folders_of_their_own(detector: str, tmp_path: Path, shell: Callable[..., Any]) -> None:
    for name, picture in zip("ab", random_pictures(2), strict=True):
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "same.png")
    done = shell("examine", tmp_path / "a", tmp_path / "b", "-m", detector, "--output", tmp_path / "out")
    assert done.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["same", "same-2"]


def test_wrong_commands(detector: str, photos: Path, shell: Callable[..., Any]) -> None:
    for options in (("--pooling", "median"), ("--crop", "square"), ("--head", "face"), ("--localize",)):
        done = shell("examine", photos / "0.png", "-m", detector, *options)
        assert done.exit_code == 2, options
        assert len(done.stderr.strip().splitlines()[-1]) > 0 and "Traceback" not in done.stderr


def test_table(detector: str, photos: Path, shell: Callable[..., Any]) -> None:
    done = shell("examine", photos / "0.png", "-m", detector, "--format", "table", "--no-checks")
    assert done.exit_code == 0
    assert "uncalibrated" in done.stdout and "0.png" in done.stdout


def test_replay(detector: str, photos: Path, tmp_path: Path, shell: Callable[..., Any]) -> None:
    shell("examine", photos / "0.png", "-m", detector, "--no-checks", "--output", tmp_path / "out")
    record = tmp_path / "out" / "0" / "examination.json"
    done = shell("replay", record, "--file", photos / "0.png", "--model", detector)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"equal": True, "differences": [], "causes": []}
    done = shell("replay", record, "--file", photos / "1.JPG", "--model", detector)
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["equal"] is False and told["causes"][0].startswith("other file")
    done = shell("replay", record, "--file", photos / "1.JPG", "--model", detector, "--format", "table")
    assert done.exit_code == 1 and "source.sha256" in done.stdout
    assert shell("replay", tmp_path / "none.json").exit_code == 2
    assert shell("replay", record).exit_code == 1  # the examined file is not beside it
