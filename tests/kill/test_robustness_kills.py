"""`evaluate --robustness` killed and run again: the bytes are those of one quiet run."""

import json
import os
from pathlib import Path

import pytest

from support.killing import Killer, run_command
from support.pictures import random_pictures
from support.tiny_models import tiny_m2f2_det

pytestmark = pytest.mark.slow
SWEEP = "jpeg-30,resize-0.5,noise-10"
STEPS = (0.35, 0.7)  # of the predictions that a quiet run writes: killed once so many are there


@pytest.fixture(scope="module")
def killer():
    before = dict(os.environ)
    yield Killer({"HF_HUB_OFFLINE": "1"})
    os.environ.clear()
    os.environ.update(before)


def lines_in(folder: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in folder.rglob("predictions.jsonl"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_robustness_after_kills(killer, tmp_path) -> None:
    tiny_m2f2_det(tmp_path / "tiny")
    for number, picture in enumerate([*random_pictures(10), *random_pictures(10, seed=1)]):
        folder = tmp_path / ("real", "fake")[number % 2]
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"{number}.png")
    given = ["evaluate", "--model", str(tmp_path / "tiny"), "--real-dir", str(tmp_path / "real")]
    given += ["--fake-dir", str(tmp_path / "fake"), "--robustness", SWEEP, "--batch-size", "1", "--resamples", "20"]
    given += ["--device", "cpu", "--output"]
    log = str(tmp_path / "log")
    killer.whole(run_command, [*given, str(tmp_path / "whole")], log)
    total = lines_in(tmp_path / "whole")
    assert total == 20 * (1 + len(SWEEP.split(",")))
    out = tmp_path / "out"
    for share in STEPS:
        process = killer.started(run_command, [*given, str(out)], log)
        while process.is_alive() and lines_in(out) < share * total:
            process.join(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -9
        assert share * total <= lines_in(out) < total and not (out / "results.json").exists()
    kept = {name: content for name, content in contents(out).items() if name.endswith("predictions.jsonl")}
    killer.whole(run_command, [*given, str(out)], log)
    whole, resumed = contents(tmp_path / "whole"), contents(out)
    assert resumed == whole
    for name, content in kept.items():  # added to, not done again
        assert whole[name].startswith(content[: content.rfind(b"\n") + 1])
    assert list(json.loads(whole["results.json"])["robustness"]["variants"]) == SWEEP.split(",")
