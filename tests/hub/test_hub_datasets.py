"""Data sets to a Hub on loopback and back, with the real clients; terms are looked at before anything is sent."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import DatasetCard, constants
from typer.testing import CliRunner

from deepfake_detectors.data.lint import parquet_source
from deepfake_detectors.data.parquet import build_dataset, find_builds
from deepfake_detectors.data.registry import make_builder
from deepfake_detectors.hub.datasets import check_terms, publish_dataset
from deepfake_detectors_cli.app import app
from support.ddvqa_tree import stems, write_tree
from support.folder_tree import save
from support.hub_server import use_hub

LOAD = """
import hashlib, json, sys
import datasets

repo, configs = sys.argv[1], sys.argv[2:]
found = {}
for config in configs:
    for streaming in (True, False):
        for split, rows in datasets.load_dataset(repo, config, streaming=streaming).items():
            assert rows.features["label"].names == ["real", "fake"]
            pictures = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
            for name in pictures:
                rows = rows.cast_column(name, datasets.Image(decode=False))
            read = []
            for row in rows:
                for name in pictures:
                    row[name] = row[name] and hashlib.sha256(row[name]["bytes"]).hexdigest()
                read.append(row)
            found[f"{config}/{split}/{streaming}"] = read
assert "deepfake_detectors" not in sys.modules  # whoever loads it needs nothing of ours
print(json.dumps(found))
"""


def raw_folder(folder):
    for split in ("train", "test"):
        for number in range(3):
            save(folder / split / "real" / f"straße {split}{number}.jpg")
            save(folder / split / "fake" / "gan" / f"{split}{number}.png")
            save(folder / "masks" / f"{split}{number}.png")
    return folder


def builder_rows(builder):
    """What the builder yields, with the digests of the raw files in place of the pictures."""
    expected = {}
    for split, units in builder.inspect(builder.config.data_dir).items():
        rows = []
        for _, row in builder._generate_examples(units):
            row = {name: row.get(name) for name in builder.info.features}
            for name in ("image", "mask"):
                if row.get(name):
                    row[name] = hashlib.sha256(Path(row[name]).read_bytes()).hexdigest()
            row["label"] = builder.info.features["label"].str2int(row["label"])
            rows.append(row)
        expected[split] = rows
    return expected


@pytest.fixture
def built(tmp_path):
    """The folder of a finished build of one's own pictures."""
    builder = make_builder("image_folder", raw_folder(tmp_path / "raw"), "real_fake", {"masks": "masks"})
    build_dataset(builder, tmp_path / "built")
    return tmp_path / "built"


@pytest.fixture
def research(tmp_path):
    """The folder of two finished configs of a data set for research only."""
    raw = write_tree(tmp_path / "ddvqa", stems(range(3)), stems(range(5, 7)))
    for config in ("c40", "c40_explain"):
        build_dataset(make_builder("ddvqa", raw, config), tmp_path / "research")
    return tmp_path / "research"


@pytest.mark.slow
def test_round_trip_through_a_hub_is_the_builders_rows(built, research, monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home") as hub:
        assert publish_dataset(built, "tester/mine") == f"{hub.url}/datasets/tester/mine"
        publish_dataset(research, "tester/research", private=True)
        assert hub.repository("dataset", "tester/research").private
        for repo, name, raw, configs in (
            ("tester/mine", "image_folder", "raw", {"real_fake": {"masks": "masks"}}),
            ("tester/research", "ddvqa", "ddvqa", {"c40": {}, "c40_explain": {}}),
        ):
            script = [sys.executable, "-c", LOAD, repo, *configs]
            environment = {**os.environ, **hub.environment(tmp_path / "elsewhere")}
            done = subprocess.run(script, env=environment, capture_output=True, text=True, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
            for config, options in configs.items():
                for split, rows in builder_rows(make_builder(name, tmp_path / raw, config, options)).items():
                    assert len(rows) > 3
                    for streaming in (True, False):
                        assert found.pop(f"{config}/{split}/{streaming}") == rows
            assert not found


def test_dry_run_is_what_would_be_pushed(built, tmp_path, monkeypatch):
    with use_hub(monkeypatch, tmp_path / "home", token=None) as hub:
        publish_dataset(built, "me/mine", dry_run=tmp_path / "dry")
        assert hub.requests == []
    names = {path.relative_to(tmp_path / "dry").as_posix() for path in (tmp_path / "dry").rglob("*") if path.is_file()}
    shards = {f"real_fake/{split}-00000-of-00001.parquet" for split in ("train", "test")}
    assert names == {"README.md"} | shards
    assert not any(path.is_symlink() for path in (tmp_path / "dry").rglob("*"))
    data = datasets.load_dataset(str(tmp_path / "dry"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 6, "test": 6}
    assert data["train"].features["label"].names == ["real", "fake"]
    streamed = datasets.load_dataset(str(tmp_path / "dry"), split="test", streaming=True)
    assert [row["id"] for row in streamed] == data["test"]["id"][:]
    again = [item.id for item in parquet_source(tmp_path / "dry").pictures]  # lint reads it, too
    assert sorted(again) == sorted([*data["train"]["id"], *data["test"]["id"]])


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_command_and_function_write_the_same_dry_run(built, tmp_path):
    publish_dataset(built, "me/mine", dry_run=tmp_path / "function")
    run(built, "--repo", "me/mine", "--dry-run", tmp_path / "command")
    expected = tree(tmp_path / "function")
    assert tree(tmp_path / "command") == expected and len(expected) == 3


def test_a_data_set_by_its_name_is_built_first(built, tmp_path):
    options = {"config": "real_fake", "options": {"masks": "masks"}}
    steps = []
    publish_dataset(
        "image_folder",
        "me/mine",
        data_dir=tmp_path / "raw",
        build_dir=tmp_path / "kept",
        dry_run=tmp_path / "named",
        progress=lambda *step: steps.append(step),
        **options,
    )
    publish_dataset(built, "me/mine", dry_run=tmp_path / "folder")
    assert tree(tmp_path / "named") == tree(tmp_path / "folder")
    assert find_builds(tmp_path / "kept") and {step[0] for step in steps} == {"train", "test"}
    publish_dataset("image_folder", "me/mine", data_dir=tmp_path / "raw", dry_run=tmp_path / "third", **options)
    assert tree(tmp_path / "third") == tree(tmp_path / "folder")


@pytest.mark.parametrize("argument", ["data_dir", "config", "options", "build_dir"])
def test_a_finished_build_takes_no_arguments_of_a_build(built, tmp_path, argument):
    with pytest.raises(ValueError, match=argument):
        publish_dataset(built, "me/mine", dry_run=tmp_path / "dry", **{argument: {"x": 1}})
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("name", "private", "accepted", "refused"),
    [
        ("ddvqa", False, False, True),
        ("ddvqa", True, False, False),
        ("ddvqa", False, True, False),
        ("genimage", False, False, True),
        ("image_folder", False, False, False),
    ],
)
def test_terms(name, private, accepted, refused):
    if refused:
        with pytest.raises(ValueError, match=r"`private`.*`accept_terms`"):
            check_terms(name, private, accepted)
    else:
        check_terms(name, private, accepted)


def test_nothing_is_sent_against_the_terms(research, monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home") as hub:
        with pytest.raises(ValueError, match="FaceForensics"):
            publish_dataset(research, "tester/research")
        assert not [request for request in hub.requests if not request.startswith("GET")]
        publish_dataset(research, "tester/research", accept_terms=True)
        assert not hub.repository("dataset", "tester/research").private


def test_terms_hold_for_the_visibility_of_the_repository(research, monkeypatch, tmp_path):
    """What `private` says of a repository that exists already is not believed."""
    with use_hub(monkeypatch, tmp_path / "home") as hub:
        repository = hub.repositories.create("dataset", "tester/research")
        before = dict(repository.files)
        with pytest.raises(ValueError, match="exists and is public, but `private`"):
            publish_dataset(research, "tester/research", private=True, update=True)
        with pytest.raises(ValueError, match="`accept_terms`"):
            publish_dataset(research, "tester/research", update=True)
        assert repository.files == before
        repository.private = True
        publish_dataset(research, "tester/research", update=True)
        assert "README.md" in repository.files and repository.private


def test_an_update_of_one_config_leaves_the_others_loadable(research, monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home") as hub:
        publish_dataset(research, "tester/research", private=True)
        before = dict(hub.repository("dataset", "tester/research").files)
        for config, other in (("c40_explain", "c40"), ("c40", "c40_explain")):
            publish_dataset(research / config, "tester/research", private=True, update=True)
            files = hub.repository("dataset", "tester/research").files
            assert files.keys() == before.keys()
            data = DatasetCard(files["README.md"].decode()).data
            assert [item["config_name"] for item in data.dataset_info] == ["c40", "c40_explain"]
            assert [item["config_name"] for item in data.configs if item.get("default")] == [config]
            assert f"not counted here: `{other}`." in files["README.md"].decode()
        loaded = datasets.load_dataset("tester/research", "c40_explain", cache_dir=str(tmp_path / "cache"))
        assert set(loaded) == {"train", "test"} and "question" in loaded["test"].features


def test_lint_of_something_else_is_refused(built, research, tmp_path):
    def publish(folder, **fields):
        (tmp_path / "lint.json").write_text(json.dumps(fields))
        shutil.rmtree(tmp_path / "dry", ignore_errors=True)
        publish_dataset(folder, "me/mine", lint=tmp_path / "lint.json", dry_run=tmp_path / "dry")

    (build,) = find_builds(built)
    counts = [{**row, "pictures": row["rows"]} for row in build.counts]
    for name in ("image_folder (real_fake)", "real_fake", "raw (real_fake)", "look-first"):
        publish(built, dataset=name, counts=counts, findings=[])
    more = [{**row, "pictures": row["rows"] + 1} for row in build.counts]
    for name, wrong in (
        ("ddvqa (real_fake)", counts),
        ("image_folder (nature_ai)", counts),
        ("nature_ai", counts),
        ("real_fake", counts[1:]),
        ("real_fake", more),
    ):
        with pytest.raises(ValueError, match=rf"{re.escape(name)}.*image_folder \(real_fake\).*`lint`"):
            publish(built, dataset=name, counts=wrong, findings=[])
    c40 = find_builds(research)[0]
    with pytest.raises(ValueError, match=r"is about 'c23'.*ddvqa \(c40, c40_explain\)"):
        publish(research, dataset="c23", counts=[{**row, "pictures": 1} for row in c40.counts], findings=[])
    with pytest.raises(ValueError, match="lacks dataset, counts or findings"):
        publish(built, accuracy=1.0)


def test_an_update_leaves_no_old_shards(built, monkeypatch, tmp_path):
    with use_hub(monkeypatch, tmp_path / "home") as hub:
        publish_dataset(built, "tester/mine")
        with pytest.raises(ValueError, match="exists already"):
            publish_dataset(built, "tester/mine")
        builder = make_builder("image_folder", tmp_path / "raw", "real_fake", {"masks": "masks"})
        monkeypatch.setattr("deepfake_detectors.data.parquet.ROW_GROUP", 4)
        build_dataset(builder, built, overwrite=True, shard_size=1e-6)
        publish_dataset(built, "tester/mine", update=True)
        files = hub.repository("dataset", "tester/mine").files
        assert {name for name in files if name.endswith(".parquet")} == {
            f"real_fake/{split}-0000{number}-of-00002.parquet" for split in ("train", "test") for number in (0, 1)
        }


def test_folders_that_are_no_finished_build(built, tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        find_builds(tmp_path / "gone")
    with pytest.raises(ValueError, match="nothing that build_dataset wrote"):
        find_builds(tmp_path / "raw")
    (built / "real_fake" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"not finished: missing test-00000-of-00001\.parquet"):
        publish_dataset(built, "me/mine", dry_run=tmp_path / "dry")
    assert not (tmp_path / "dry").exists()


def test_interrupted_build_is_not_published(tmp_path):
    raw = raw_folder(tmp_path / "raw")
    (raw / "train" / "real" / "straße train1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be decoded"):
        build_dataset(make_builder("image_folder", raw, "real_fake"), tmp_path / "built")
    with pytest.raises(ValueError, match="not finished"):
        find_builds(tmp_path / "built")


def test_sets_are_not_mixed(built, research):
    (research / "c40").rename(built / "c40")
    with pytest.raises(ValueError, match="ddvqa, image_folder"):
        find_builds(built)


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["dataset", "publish", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_command_builds_and_publishes(monkeypatch, tmp_path):
    raw = raw_folder(tmp_path / "raw")
    arguments = ["image_folder", "--config", "real_fake", "--data-dir", raw, "--repo", "tester/mine"]
    with use_hub(monkeypatch, tmp_path / "home") as hub:
        result = run(*arguments, "--private")
        assert result.stdout.strip() == f"{hub.url}/datasets/tester/mine"
        assert hub.repository("dataset", "tester/mine").private
        run(*arguments, "--build-dir", tmp_path / "kept", "--update")
        assert find_builds(tmp_path / "kept")
    result = run(*arguments, "--dry-run", tmp_path / "dry")
    assert "Nothing was sent" in result.stderr
    assert (tmp_path / "dry" / "README.md").is_file()


def test_command_refuses_before_it_builds(monkeypatch, tmp_path):
    raw = write_tree(tmp_path / "ddvqa", stems(range(3)), stems(range(5, 7)))
    arguments = ["ddvqa", "--data-dir", raw, "--repo", "tester/copy", "--build-dir", tmp_path / "kept"]
    with use_hub(monkeypatch, tmp_path / "home") as hub:
        assert "accept" in run(*arguments, code=1).stderr
        hub.repositories.create("dataset", "tester/copy", private=True).add_commit({"theirs": b"x"}, "theirs")
        assert "exists already" in run(*arguments, "--private", code=1).stderr
        hub.repository("dataset", "tester/copy").private = False
        assert "is public" in run(*arguments, "--private", "--update", code=1).stderr
        monkeypatch.setenv("HF_TOKEN", "hf_somebody_else")
        assert "refused the token" in run(*arguments, "--private", code=1).stderr
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "HF_HUB_OFFLINE" in run(*arguments, "--private", code=1).stderr
    with use_hub(monkeypatch, tmp_path / "home2", token=None) as hub:
        assert "not logged in" in run(*arguments, "--private", code=1).stderr
        assert hub.requests == []
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope", "--repo", "a/b"], 1, "is not a folder"),
        (["{built}", "--repo", "no-owner"], 1, "no-owner"),
        (["{built}", "--repo", "a/b", "--config", "x"], 2, "--data-dir"),
        (["{built}", "--repo", "a/b", "--lint", "{built}/gone.json"], 1, "gone.json"),
        (["{built}"], 2, "--repo"),
    ],
)
def test_wrong_use(built, arguments, code, message, tmp_path):
    given = [text.format(built=built) for text in arguments]
    assert message in run(*given, "--dry-run", tmp_path / "dry", code=code).stderr
    assert not (tmp_path / "dry").exists()


def test_help_has_an_example():
    assert "Example" in run("--help").stdout
