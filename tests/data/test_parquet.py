"""Raw files to Parquet: byte for byte, resumable, honest about what is missing."""

import json
import os
import shutil
from pathlib import Path

import datasets
import pytest

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.data.parquet import check, write_parquet
from deepfake_detectors.data.registry import BUILDERS, builder_class, config_options, make_builder
from support.folder_tree import save


@pytest.fixture
def raw(tmp_path):
    for split in ("train", "test"):
        for number in range(4):
            save(tmp_path / "raw" / split / "real" / f"{split}{number}.jpg")
            save(tmp_path / "raw" / split / "fake" / "gan" / f"{split}{number}.png")
    return tmp_path / "raw"


@pytest.fixture
def open_builder(raw):
    def run(**options):
        return make_builder("image_folder", raw, "real_fake", options)

    return run


def test_round_trip_is_byte_for_byte(raw, open_builder, tmp_path):
    assert write_parquet(open_builder(), tmp_path / "out") == {"train": 8, "test": 8}
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
    write_parquet(open_builder(), tmp_path, shard_bytes=1)
    names = sorted(path.name for path in (tmp_path / "real_fake").glob("train-*"))
    assert names == [f"train-{number:05d}-of-00003.parquet" for number in range(3)]
    assert len(datasets.load_dataset(str(tmp_path / "real_fake"), split="train", cache_dir=str(tmp_path))) == 8


def test_interrupted_build_goes_on(raw, open_builder, tmp_path):
    broken = raw / "test" / "real" / "test2.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    order = [str(name) for name in open_builder().inspect(raw)]
    with pytest.raises(ValueError, match=r"test2\.jpg \(200 bytes\) cannot be decoded"):
        write_parquet(open_builder(), tmp_path)
    folder = tmp_path / "real_fake"
    assert not list(folder.glob("test-*"))  # nothing half-written under a final name
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert len(finished) == order.index("test")

    broken.write_bytes(whole)
    built = []
    done = write_parquet(open_builder(), tmp_path, progress=lambda split, rows, expected: built.append(split))
    assert done == {"train": 8, "test": 8}
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert set(built) == set(order[order.index("test") :])
    assert not list(folder.glob(".*.partial"))


def test_changed_raw_files_are_built_again(raw, open_builder, tmp_path):
    write_parquet(open_builder(), tmp_path)
    save(raw / "train" / "real" / "new.jpg")
    assert write_parquet(open_builder(), tmp_path)["train"] == 9
    built = []
    write_parquet(open_builder(), tmp_path, overwrite=True, progress=lambda split, *_: built.append(split))
    assert set(built) == {"train", "test"}


def test_new_content_under_an_old_name_and_time_is_built_again(raw, open_builder, tmp_path):
    write_parquet(open_builder(), tmp_path)
    path = raw / "train" / "fake" / "gan" / "train1.png"
    before, old = path.stat(), path.read_bytes()
    path.write_bytes(old[:-8] + b"changed!")  # behind the pixels: as long as before, and still a picture
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    built = []
    write_parquet(open_builder(), tmp_path, progress=lambda split, *_: built.append(split))
    assert set(built) == {"train"}
    data = datasets.load_dataset(str(tmp_path / "real_fake"), split="train", cache_dir=str(tmp_path / "cache"))
    pictures = [row["image"]["bytes"] for row in data.cast_column("image", datasets.Image(decode=False))]
    assert path.read_bytes() in pictures
    assert old not in pictures


@pytest.mark.parametrize("gone", [True, False])
def test_damaged_result_is_built_again(open_builder, tmp_path, gone):
    write_parquet(open_builder(), tmp_path)
    path = next((tmp_path / "real_fake").glob("test-*"))
    whole = path.read_bytes()
    path.unlink() if gone else path.write_bytes(whole[:-10])
    built = []
    write_parquet(open_builder(), tmp_path, progress=lambda split, *_: built.append(split))
    assert set(built) == {"test"}
    assert path.read_bytes() == whole


def test_changed_options_are_built_again(open_builder, tmp_path):
    write_parquet(open_builder(), tmp_path)
    with pytest.raises(ValueError, match="pass --overwrite to build it again"):
        write_parquet(open_builder(prefix="mine"), tmp_path)
    write_parquet(open_builder(prefix="mine"), tmp_path, overwrite=True)
    data = datasets.load_dataset(str(tmp_path / "real_fake"), split="train", cache_dir=str(tmp_path / "cache"))
    assert all(name.startswith("mine/") for name in data["id"])


def test_split_that_is_gone_does_not_stay(raw, open_builder, tmp_path):
    write_parquet(open_builder(), tmp_path)
    shutil.rmtree(raw / "test")
    assert write_parquet(open_builder(), tmp_path) == {"train": 8}
    assert not list((tmp_path / "real_fake").glob("test-*"))


def test_failed_rebuild_leaves_the_build_before_it(raw, open_builder, tmp_path):
    write_parquet(open_builder(), tmp_path)
    shards = {path.name: path.read_bytes() for path in (tmp_path / "real_fake").glob("*.parquet")}
    for split in ("train", "test"):
        path = raw / split / "real" / f"{split}2.jpg"
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be decoded"):
        write_parquet(open_builder(), tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "real_fake").glob("*.parquet")} == shards


def test_file_that_changes_meanwhile(raw, open_builder, tmp_path):
    path = raw / "train" / "real" / "train0.jpg"

    def touch(split, rows, expected):
        if split == "train" and rows:
            path.write_bytes(path.read_bytes())

    with pytest.raises(ValueError, match="changed while train was built; build again"):
        write_parquet(open_builder(), tmp_path, progress=touch)
    assert not list((tmp_path / "real_fake").glob("train-*"))
    assert write_parquet(open_builder(), tmp_path) == {"train": 8, "test": 8}
    assert json.loads((tmp_path / "real_fake" / ".build.json").read_text())["complete"] is True


def test_foreign_folder_is_left_alone(open_builder, tmp_path):
    save(tmp_path / "real_fake" / "mine.png")
    with pytest.raises(ValueError, match="was not written by this command"):
        write_parquet(open_builder(), tmp_path)


def test_foreign_parquet_is_never_removed(open_builder, tmp_path):
    write_parquet(open_builder(), tmp_path)
    foreign = tmp_path / "real_fake" / "mine-00000-of-00001.parquet"
    foreign.write_bytes(b"mine")
    with pytest.raises(ValueError, match="did not write, such as mine-00000-of-00001"):
        write_parquet(open_builder(), tmp_path, overwrite=True)
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
    assert write_parquet(make_builder("ffpp_hdf5", raw), tmp_path / "out") == {"test": 1000}
    rows = datasets.load_dataset(str(tmp_path / "out" / "c40"), split="test", cache_dir=str(tmp_path / "cache"))
    assert all(np.array_equal(np.asarray(rows[index]["image"]), clip[index % 100]) for index in range(0, 1000, 37))


def test_check_counts_and_decodes(raw, open_builder):
    result = check(open_builder(), decode=True)
    assert result.ok
    assert result.rows == result.units
    assert sum(result.rows.values()) == 16
    for name in ("train1.jpg", "train3.jpg"):
        (raw / "train" / "real" / name).write_bytes(b"")
    assert check(open_builder()).ok  # sizes and content are read on request only
    errors = [message for level, message in check(open_builder(), decode=True).findings if level == "error"]
    assert ["train1.jpg" in errors[0], "train3.jpg" in errors[1], len(errors)] == [True, True, 2]


def test_check_gives_a_refusal_as_finding(raw, open_builder, tmp_path):
    (raw / "train" / "real" / "link.png").symlink_to(save(tmp_path / "outside.png"))
    result = check(open_builder())
    assert not result.ok
    assert "link.png leads out of" in result.findings[-1][1]


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_builder_says_what_it_is(name):
    kind = builder_class(name)
    for attribute in ("NAME", "TERMS", "LAYOUT", "REMEDY"):
        assert getattr(kind, attribute), attribute
    assert isinstance(kind.LAYOUT_VERIFIED, bool)
    assert isinstance(kind.RESEARCH_ONLY, bool)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_builder_asks_for_data(name, monkeypatch):
    monkeypatch.delenv("DEEPFAKE_DATA", raising=False)
    with pytest.raises(ValueError, match="DEEPFAKE_DATA"):
        make_builder(name)


def test_state_names_builder_and_version(open_builder, tmp_path):
    write_parquet(open_builder(), tmp_path)
    path = tmp_path / "real_fake" / ".build.json"
    state = json.loads(path.read_text())
    assert str(Path(tmp_path)) not in path.read_text()
    path.write_text(json.dumps(state | {"version": "0.0.1"}))
    with pytest.raises(ValueError, match=r"holds a build of RealFakeFolder 0\.0\.1"):
        write_parquet(open_builder(), tmp_path)


def test_unknown_names(raw):
    with pytest.raises(ValueError, match="unknown data set 'nope'"):
        make_builder("nope", raw)
    with pytest.raises(ValueError, match="nope"):
        make_builder("image_folder", raw, "real_fake", {"nope": 1})


@pytest.mark.parametrize(
    ("dataset", "option", "given", "expected"),
    [
        ("faceforensics", "allow_missing", "False", False),
        ("dmimage", "processed", "no", False),
        ("faceforensics", "masks", "Yes", True),
        ("faceforensics", "frames_per_video", "8", 8),
        ("faceforensics", "methods", "Deepfakes", ("Deepfakes",)),
        ("faceforensics", "methods", ["Deepfakes", "FaceSwap"], ("Deepfakes", "FaceSwap")),
        ("image_folder", "real", ["a"], ("a",)),
        ("image_folder", "prefix", 12, "12"),
        ("ffpp_hdf5", "split_file", None, None),
        ("deepfakebench", "prefix_map", {"a": "b"}, {"a": "b"}),
    ],
)
def test_options_have_the_types_of_their_fields(dataset, option, given, expected):
    converted = config_options(dataset, {option: given})[option]
    assert converted == expected and type(converted) is type(expected)


@pytest.mark.parametrize(
    ("option", "given", "message"),
    [
        ("allow_missing", "maybe", "Option allow_missing is 'maybe', expected true or false"),
        ("frames_per_video", "eight", "Option frames_per_video is 'eight', expected a whole number"),
        ("frames_per_video", 1.5, "frames_per_video is 1.5"),
        ("compression", True, "Option compression is True, expected a text"),
        ("methods", [1], r"Option methods is \[1\], expected a text or a list of texts"),
        ("data_dir", "x", "faceforensics has no option data_dir, but allow_missing, compression"),
    ],
)
def test_options_of_another_type_are_refused(tmp_path, option, given, message):
    for call in (make_builder, load_faceforensics):
        with pytest.raises(ValueError, match=message):
            call("faceforensics", tmp_path, options={option: given})


def load_faceforensics(dataset, folder, options):
    return load_split(dataset, "test", folder, options=options)


def test_missing_data_names_the_switch_of_the_commands(monkeypatch):
    monkeypatch.delenv("DEEPFAKE_DATA", raising=False)
    with pytest.raises(ValueError, match="pass --data-dir"):
        make_builder("ddvqa")


def test_counts_are_errors_whether_or_not_the_layout_is_verified(tmp_path):
    save(tmp_path / "test" / "frames" / "a" / "000.png")
    (tmp_path / "test" / "labels.csv").write_text("\ufefffilename,label\na.mp4,0\n", encoding="utf-8")
    result = check(make_builder("dfdc", tmp_path))
    assert not result.ok
    assert ("error", "test: 1 real videos, published are 2500.") in result.findings
