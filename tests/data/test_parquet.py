"""Raw files to Parquet: byte for byte, resumable, honest about what is missing."""

import json
import os
import shutil
from pathlib import Path

import datasets
import pytest

from deepfake_detectors.data.parquet import build_dataset, find_builds
from deepfake_detectors.data.registry import make_builder
from deepfake_detectors.outputs import OutputInUseError, folder_lock
from support.folder_tree import save


def test_round_trip_is_byte_for_byte(raw, open_builder, tmp_path):
    assert build_dataset(open_builder(), tmp_path / "out").rows == {"train": 8, "test": 8}
    folder = str(tmp_path / "out" / "real_fake")
    data = datasets.load_dataset(folder, cache_dir=str(tmp_path / "cache"))
    assert data["train"].features == open_builder().info.features
    plain = data["train"].cast_column("image", datasets.Image(decode=False))
    for row in plain:
        assert row["image"]["bytes"] == (raw / row["id"].removeprefix("image_folder/")).read_bytes()
        assert str(raw) not in str(row["image"]["path"])
    streamed = datasets.load_dataset(folder, split="test", streaming=True)
    expected = [row["id"] for row in open_builder().as_streaming_dataset(split="test")]
    assert [row["id"] for row in streamed] == expected


def test_shards(open_builder, tmp_path, monkeypatch):
    monkeypatch.setattr("deepfake_detectors.data.parquet.ROW_GROUP", 3)
    build_dataset(open_builder(), tmp_path, shard_size=1e-6)
    names = sorted(path.name for path in (tmp_path / "real_fake").glob("train-*"))
    assert names == [f"train-{number:05d}-of-00003.parquet" for number in range(3)]
    assert len(datasets.load_dataset(str(tmp_path / "real_fake"), split="train", cache_dir=str(tmp_path))) == 8


def test_interrupted_build_goes_on(raw, open_builder, tmp_path):
    broken = raw / "test" / "real" / "test2.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    order = [str(name) for name in open_builder().inspect(raw)]
    with pytest.raises(ValueError, match=r"test2\.jpg \(200 bytes\) cannot be decoded"):
        build_dataset(open_builder(), tmp_path)
    folder = tmp_path / "real_fake"
    assert not list(folder.glob("test-*"))  # nothing half-written under a final name
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert len(finished) == order.index("test")

    broken.write_bytes(whole)
    built = []
    done = build_dataset(open_builder(), tmp_path, progress=lambda split, rows, expected: built.append(split)).rows
    assert done == {"train": 8, "test": 8}
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert set(built) == set(order[order.index("test") :])
    assert not list(folder.glob(".*.partial"))


def test_changed_raw_files_are_built_again(raw, open_builder, tmp_path):
    build_dataset(open_builder(), tmp_path)
    save(raw / "train" / "real" / "new.jpg")
    assert build_dataset(open_builder(), tmp_path).rows["train"] == 9
    built = []
    build_dataset(open_builder(), tmp_path, overwrite=True, progress=lambda split, *_: built.append(split))
    assert set(built) == {"train", "test"}


def test_new_content_under_an_old_name_and_time_is_built_again(raw, open_builder, tmp_path):
    build_dataset(open_builder(), tmp_path)
    path = raw / "train" / "fake" / "gan" / "train1.png"
    before, old = path.stat(), path.read_bytes()
    path.write_bytes(old[:-8] + b"changed!")  # behind the pixels: as long as before, and still a picture
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    built = []
    build_dataset(open_builder(), tmp_path, progress=lambda split, *_: built.append(split))
    assert set(built) == {"train"}
    data = datasets.load_dataset(str(tmp_path / "real_fake"), split="train", cache_dir=str(tmp_path / "cache"))
    pictures = [row["image"]["bytes"] for row in data.cast_column("image", datasets.Image(decode=False))]
    assert path.read_bytes() in pictures
    assert old not in pictures


@pytest.mark.parametrize("gone", [True, False])
def test_damaged_result_is_built_again(open_builder, tmp_path, gone):
    build_dataset(open_builder(), tmp_path)
    path = next((tmp_path / "real_fake").glob("test-*"))
    whole = path.read_bytes()
    path.unlink() if gone else path.write_bytes(whole[:-10])
    built = []
    build_dataset(open_builder(), tmp_path, progress=lambda split, *_: built.append(split))
    assert set(built) == {"test"}
    assert path.read_bytes() == whole


def test_changed_options_are_built_again(open_builder, tmp_path):
    build_dataset(open_builder(), tmp_path)
    with pytest.raises(ValueError, match="`overwrite`"):
        build_dataset(open_builder(prefix="mine"), tmp_path)
    build_dataset(open_builder(prefix="mine"), tmp_path, overwrite=True)
    data = datasets.load_dataset(str(tmp_path / "real_fake"), split="train", cache_dir=str(tmp_path / "cache"))
    assert all(name.startswith("mine/") for name in data["id"])


def test_split_that_is_gone_does_not_stay(raw, open_builder, tmp_path):
    build_dataset(open_builder(), tmp_path)
    shutil.rmtree(raw / "test")
    assert build_dataset(open_builder(), tmp_path).rows == {"train": 8}
    assert not list((tmp_path / "real_fake").glob("test-*"))


def test_failed_rebuild_leaves_the_build_before_it(raw, open_builder, tmp_path):
    build_dataset(open_builder(), tmp_path)
    shards = {path.name: path.read_bytes() for path in (tmp_path / "real_fake").glob("*.parquet")}
    for split in ("train", "test"):
        path = raw / split / "real" / f"{split}2.jpg"
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be decoded"):
        build_dataset(open_builder(), tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "real_fake").glob("*.parquet")} == shards


def test_file_that_changes_meanwhile(raw, open_builder, tmp_path):
    path = raw / "train" / "real" / "train0.jpg"

    def touch(split, rows, expected):
        if split == "train" and rows:
            path.write_bytes(path.read_bytes())

    with pytest.raises(ValueError, match="train was being built"):
        build_dataset(open_builder(), tmp_path, progress=touch)
    assert not list((tmp_path / "real_fake").glob("train-*"))
    assert build_dataset(open_builder(), tmp_path).rows == {"train": 8, "test": 8}
    assert json.loads((tmp_path / "real_fake" / ".build.json").read_text())["complete"] is True


def test_foreign_folder_is_left_alone(open_builder, tmp_path):
    save(tmp_path / "real_fake" / "mine.png")
    with pytest.raises(ValueError, match="is not empty"):
        build_dataset(open_builder(), tmp_path)


def test_foreign_parquet_is_never_removed(open_builder, tmp_path):
    build_dataset(open_builder(), tmp_path)
    foreign = tmp_path / "real_fake" / "mine-00000-of-00001.parquet"
    foreign.write_bytes(b"mine")
    with pytest.raises(ValueError, match="mine-00000-of-00001"):
        build_dataset(open_builder(), tmp_path, overwrite=True)
    assert foreign.read_bytes() == b"mine"


def test_pixels_from_arrays(tmp_path):
    h5py = pytest.importorskip("h5py")
    import numpy as np

    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "test.json").write_text('[["000", "001"]]')
    clip = np.random.default_rng(0).integers(0, 256, (100, 6, 8, 3), dtype=np.uint8)
    for name in ("original", "Deepfakes", "FaceSwap", "NeuralTextures", "Face2Face"):
        with h5py.File(raw / f"FF++_{name}_c40_test_only.h5", "w") as file:
            for key in ("000", "001") if name == "original" else ("000_001", "001_000"):
                file[key] = clip
    assert build_dataset(make_builder("ffpp_hdf5", raw), tmp_path / "out").rows == {"test": 1000}
    rows = datasets.load_dataset(str(tmp_path / "out" / "c40"), split="test", cache_dir=str(tmp_path / "cache"))
    assert all(np.array_equal(np.asarray(rows[index]["image"]), clip[index % 100]) for index in range(0, 1000, 37))


def test_state_names_builder_and_version(open_builder, tmp_path):
    build_dataset(open_builder(), tmp_path)
    path = tmp_path / "real_fake" / ".build.json"
    state = json.loads(path.read_text())
    assert str(Path(tmp_path)) not in path.read_text()
    path.write_text(json.dumps(state | {"version": "0.0.1"}))
    with pytest.raises(ValueError, match=r"RealFakeFolder 0\.0\.1"):
        build_dataset(open_builder(), tmp_path)


def test_a_name_and_a_builder_are_built_alike(raw, open_builder, tmp_path):
    by_builder = build_dataset(open_builder(), tmp_path / "builder")
    by_name = build_dataset("image_folder", tmp_path / "name", raw, "real_fake")
    assert (by_name.rows, by_name.built) == (by_builder.rows, by_builder.built)
    shards = {path.name: path.read_bytes() for path in by_name.folder.glob("*.parquet")}
    assert shards == {path.name: path.read_bytes() for path in by_builder.folder.glob("*.parquet")}
    assert [build.dataset for build in find_builds(tmp_path / "name")] == ["image_folder"]
    assert build_dataset("image_folder", tmp_path / "name", raw, "real_fake").built == ()


@pytest.mark.parametrize("content", ["{", "[]", '{"splits": {"train": 1}}'])
def test_a_damaged_state_file_is_named(open_builder, tmp_path, content):
    folder = build_dataset(open_builder(), tmp_path).folder
    (folder / ".build.json").write_text(content)
    for call in (lambda: build_dataset(open_builder(), tmp_path), lambda: find_builds(tmp_path)):
        with pytest.raises(ValueError, match=r"\.build\.json"):
            call()


def test_shard_size_is_checked(open_builder, tmp_path):
    with pytest.raises(ValueError, match="shard_size` is 0"):
        build_dataset(open_builder(), tmp_path, shard_size=0)


@pytest.mark.parametrize("content", ["", '{"splits": {"train"', "[]", '{"splits": []}', '{"splits": {"train": {}}}'])
def test_a_torn_state_file_does_not_block_overwriting(open_builder, tmp_path, content):
    whole = build_dataset(open_builder(), tmp_path / "whole")
    expected = {path.name: path.read_bytes() for path in whole.folder.iterdir()}
    folder = build_dataset(open_builder(), tmp_path / "torn", shard_size=1e-6).folder
    (folder / ".build.json").write_text(content)
    with pytest.raises(ValueError, match=r"\.build\.json.*`overwrite`"):
        build_dataset(open_builder(), tmp_path / "torn")
    build_dataset(open_builder(), tmp_path / "torn", overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected


def test_a_build_that_another_process_writes(open_builder, tmp_path):
    with folder_lock(tmp_path / "real_fake"), pytest.raises(OutputInUseError, match=f"process {os.getpid()}"):
        build_dataset(open_builder(), tmp_path)
    assert build_dataset(open_builder(), tmp_path).rows == {"train": 8, "test": 8}


def test_a_build_never_goes_over_its_raw_files(raw, open_builder, tmp_path):
    (tmp_path / "real_fake").symlink_to(raw)
    before = sorted(raw.rglob("*"))
    with pytest.raises(ValueError, match="also an input"):
        build_dataset(open_builder(), tmp_path, overwrite=True)
    assert sorted(raw.rglob("*")) == before


def test_the_limit_of_pixels_belongs_to_no_row(raw, open_builder, tmp_path):
    with pytest.raises(ValueError, match="max_pixels"):
        build_dataset("image_folder", tmp_path / "out", raw, "real_fake", max_pixels=100)
    assert build_dataset(open_builder(max_pixels=400), tmp_path / "out").built == ("train", "test")
    assert build_dataset(open_builder(), tmp_path / "out").built == ()
    with pytest.raises(ValueError, match="`max_pixels`"):
        build_dataset(open_builder(), tmp_path / "out", max_pixels=400)
