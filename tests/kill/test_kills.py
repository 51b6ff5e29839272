"""A kill while something is written leaves the old state or the new one, and the rerun equals an uninterrupted run.

`KILLS` says how often each is killed; `make kill N=30` sets it.
"""

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

import deepfake_detectors  # noqa: F401 - registers the families
from support.folder_tree import save
from support.hub_server import HubServer
from support.killing import Killer, run_command, save_weights
from support.tiny_models import tiny_m2f2_det

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("KILLS", "3"))


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def killer(hub, tmp_path_factory):
    before = dict(os.environ)
    yield Killer(hub.environment(tmp_path_factory.mktemp("home")), seed=KILLS)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny detector `tiny`, and pictures in `raw/<split>/<class>`."""
    folder = tmp_path_factory.mktemp("place")
    tiny_m2f2_det(folder / "tiny")
    for label in ("real", "fake"):
        for number in range(6):
            save(folder / "raw" / "test" / label / f"{label}{number}.png", (64, 64))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def litter(folder: Path) -> list[str]:
    """Hidden names in a folder, which a finished run has none of, its state file aside."""
    hidden = (str(path.relative_to(folder)) for path in folder.rglob(".*"))
    return [name for name in hidden if not name.endswith(".build.json")]


def evaluate(place: Path, output: Path) -> list[str]:
    raw = place / "raw" / "test"
    given = ["--model", place / "tiny", "--real-dir", raw / "real", "--fake-dir", raw / "fake", "--output", output]
    return ["evaluate", *map(str, given), "--batch-size", "1", "--resamples", "20"]


def build(place: Path, output: Path) -> list[str]:
    given = ["--data-dir", place / "raw", "--config", "real_fake", "--output", output]
    return ["dataset", "build", "image_folder", *map(str, given)]


@pytest.mark.parametrize("command", [evaluate, build], ids=["evaluate", "dataset_build"])
def test_the_rerun_equals_an_uninterrupted_run(killer, place, tmp_path, command):
    log = str(tmp_path / "log")
    seconds = killer.whole(run_command, command(place, tmp_path / "whole"), log)
    expected = contents(tmp_path / "whole")
    for number in range(KILLS):
        output = tmp_path / f"killed{number}"
        killer.killed(seconds, run_command, command(place, output), log)
        killer.whole(run_command, command(place, output), log)
        assert contents(output) == expected, Path(log).read_text()
        assert litter(output) == []


def test_the_old_rows_stay_until_the_new_ones_are_whole(killer, place, tmp_path):
    log, output = str(tmp_path / "log"), tmp_path / "rows.jsonl"
    words = ["detect", str(place / "raw"), "--recursive", "--model", str(place / "tiny"), "--output", str(output)]
    words += ["--batch-size", "1"]
    seconds = killer.whole(run_command, words, log)
    expected = output.read_bytes()
    for _ in range(KILLS):
        output.write_text("old")
        killer.killed(seconds, run_command, words, log)
        assert output.read_bytes() in (b"old", expected)
        killer.whole(run_command, words, log)
        assert output.read_bytes() == expected
        assert litter(tmp_path) == []


def test_a_saved_detector_is_the_old_one_or_the_new_one(killer, place, tmp_path):
    log, folder = str(tmp_path / "log"), place / "saved"
    killer.whole(save_weights, str(folder), 0.0, log)
    seconds = killer.whole(save_weights, str(folder), 0.0, log)
    value = 0.0
    for number in range(1, KILLS + 1):
        killer.killed(seconds, save_weights, str(folder), number / 100, log)
        model = AutoModel.from_pretrained(folder)
        found = model.config.operating_points["value"]
        assert found in (value, number / 100)
        assert all(torch.all(weight == found) for weight in model.parameters())
        value = found
    killer.whole(save_weights, str(folder), 0.5, log)
    assert AutoModel.from_pretrained(folder).config.operating_points == {"value": 0.5}
    assert litter(folder) == []


def test_a_killed_publication_is_finished_by_the_same_command(killer, place, hub, tmp_path):
    log = str(tmp_path / "log")

    def words(name: str) -> list[str]:
        return ["publish", "--model", str(place / "tiny"), "--repo", f"tester/{name}", "--without-results"]

    seconds = killer.whole(run_command, words("whole"), log)
    expected = hub.repository("model", "tester/whole").files
    for number in range(KILLS):
        name = f"kill-{number}"
        killer.killed(seconds, run_command, words(name), log)
        killer.whole(run_command, words(name), log)
        found = hub.repository("model", f"tester/{name}").files
        assert found.keys() == expected.keys()
        same = {path for path in expected if path != "README.md"}  # which names the repository
        assert {path: found[path] for path in same} == {path: expected[path] for path in same}
        killer.whole(run_command, words(name), log)  # of a whole one: nothing is left to do
        assert len(hub.repository("model", f"tester/{name}").commits) == 2
