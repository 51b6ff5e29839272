"""A kill while something is written leaves the old state or the new one, and the rerun equals an uninterrupted run.

`KILLS` says how often each is killed; `make kill N=30` sets it.
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import deepfake_detectors  # noqa: F401 - registers the families
from deepfake_detectors.outputs import OutputInUseError
from deepfake_detectors.train.train_classifier import train_classifier
from support.classifier_runs import parsed, small_fields
from support.ddvqa_tree import stems, write_tree
from support.folder_tree import save
from support.golden_files import golden_folder
from support.hub_server import HubServer
from support.killing import Killer, run_command, run_on_full_disk, save_weights, train
from support.m2f2_det_folders import cosine_fields, read_config
from support.sft_runs import write_recipe
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
    name, weight = next(iter(load_file(folder / "tiny" / "model.safetensors").items()))
    save_file({name: weight + 1}, folder / "delta.safetensors")
    torch.save(load_file(golden_folder("m2f2_det") / "llava_detector" / "model.safetensors"), folder / "official.pth")
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


def convert(place: Path, output: Path) -> list[str]:
    fields = json.dumps(cosine_fields(read_config(golden_folder("m2f2_det") / "llava_detector")))
    given = ["--source", place / "official.pth", "--output", output, "--config", fields, "--overwrite"]
    return ["convert", "m2f2_det", *map(str, given)]


def merge(place: Path, output: Path) -> list[str]:
    given = ["--model", place / "tiny", "--delta", place / "delta.safetensors", "--output", output, "--overwrite"]
    return ["merge", *map(str, given)]


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


@pytest.mark.parametrize("command", [convert, merge])
def test_a_checkpoint_that_is_replaced_is_the_old_one_or_the_new_one(killer, place, tmp_path, command):
    log, output = str(tmp_path / "log"), tmp_path / "out"
    seconds = killer.whole(run_command, command(place, tmp_path / "whole"), log)
    old, new = contents(place / "tiny"), contents(tmp_path / "whole")
    assert old.keys() == new.keys() and old != new
    for _ in range(KILLS):
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(place / "tiny", output)
        killer.killed(seconds, run_command, command(place, output), log)
        aside = output.with_name(".out.old")  # between the two renames
        assert contents(output if output.exists() else aside) in (old, new)
        killer.whole(run_command, command(place, output), log)
        assert contents(output) == new, Path(log).read_text()
        assert litter(tmp_path) == []


def errors(log: Path) -> list[str]:
    """What a command said of its failure."""
    said = log.read_text()
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.startswith("Error: ")]


def test_rows_that_have_no_room_leave_the_old_ones(killer, place, tmp_path):
    log, output = tmp_path / "log", tmp_path / "rows.jsonl"
    output.write_text("old")
    words = ["detect", str(place / "raw"), "--recursive", "--model", str(place / "tiny"), "--output", str(output)]
    assert killer.exit_code(run_on_full_disk, words, str(log), 1000) == 1
    assert len(errors(log)) == 1 and output.read_text() == "old" and litter(tmp_path) == []
    killer.whole(run_command, words, str(log))
    assert len(output.read_text().splitlines()) == 12


def test_a_report_that_has_no_room_leaves_the_old_one(killer, place, tmp_path):
    log, output = tmp_path / "log", tmp_path / "report"
    killer.whole(run_command, evaluate(place, output), str(log))
    before = contents(output)
    again = [*evaluate(place, output), "--seed", "1"]
    assert killer.exit_code(run_on_full_disk, again, str(log), 3000) == 1
    assert len(errors(log)) == 1 and contents(output) == before and litter(output) == []
    killer.whole(run_command, again, str(log))
    assert contents(output)["results.json"] != before["results.json"]


def test_a_split_that_has_no_room_leaves_the_old_one(killer, place, tmp_path):
    log, output = tmp_path / "log", tmp_path / "built"
    shutil.copytree(place / "raw", tmp_path / "raw")
    killer.whole(run_command, build(tmp_path, output), str(log))
    before = {name: content for name, content in contents(output).items() if name.endswith(".parquet")}
    save(tmp_path / "raw" / "test" / "real" / "new.png", (64, 64))
    assert killer.exit_code(run_on_full_disk, build(tmp_path, output), str(log), 20_000) == 1
    assert len(errors(log)) == 1
    assert {name: content for name, content in contents(output).items() if name.endswith(".parquet")} == before
    killer.whole(run_command, build(tmp_path, output), str(log))
    (shard,) = output.rglob("*.parquet")
    assert parquet.read_metadata(shard).num_rows == 13
    assert litter(output) == []


def test_a_second_training_into_one_folder_is_refused(killer, tmp_path):
    data = write_tree(tmp_path / "ddvqa", stems(range(8)), stems(range(20, 22)))
    output = tmp_path / "out"
    fields = small_fields("m2f2_det_stage1_cosine", data, output, max_steps=100_000, lr_scheduler_type="constant")
    recipe = write_recipe(tmp_path / "recipe.yaml", fields)[1]
    first = killer.started(train, recipe, str(tmp_path / "log"))
    owner = tmp_path / ".out.lock-owner.json"
    until = time.monotonic() + 120
    while not owner.exists() and first.is_alive() and time.monotonic() < until:
        time.sleep(0.2)
    assert owner.exists(), (tmp_path / "log").read_text()
    before = sorted(output.rglob("*"))
    try:
        with pytest.raises(OutputInUseError, match=f"process {first.pid}"):
            train_classifier(*parsed(tmp_path, fields))
        assert first.is_alive() and sorted(output.rglob("*")) == before
    finally:
        first.kill()
        first.join()
    train_classifier(*parsed(tmp_path, {**fields, "max_steps": 1}))  # a dead owner blocks nobody
    assert (output / "model.safetensors").is_file()


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
