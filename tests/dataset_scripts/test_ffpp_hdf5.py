"""FaceForensics++ HDF5 reader on small files in the official layout."""

import json

import h5py
import numpy as np
import pytest

from deepfake_detectors.dataset_scripts.ffpp_hdf5 import FILES, FFPPHdf5

PAIRS = {"train": [["000", "001"], ["002", "003"]], "val": [["004", "005"]], "test": [["007", "006"]]}
LENGTH = 103


def write(root, compression="c40", suffix="", splits=tuple(PAIRS), length=LENGTH):
    generator = np.random.default_rng(0)
    for name in FILES:
        with h5py.File(root / f"FF++_{name}_{compression}{suffix}.h5", "w") as file:
            for pair in (pair for split in splits for pair in PAIRS[split]):
                for key in pair if name == "original" else ["_".join(pair), "_".join(reversed(pair))]:
                    file[key] = generator.integers(0, 256, (length, 6, 8, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "ffpp"
    (folder / "splits").mkdir(parents=True)
    for split, pairs in PAIRS.items():
        (folder / "splits" / f"{split}.json").write_text(json.dumps(pairs))
    write(folder)
    return folder


@pytest.fixture
def make(tmp_path):
    def run(root, config="c40", **options):
        return FFPPHdf5(config_name=config, data_dir=str(root), cache_dir=str(tmp_path / "cache"), **options)

    return run


def test_splits_and_frames(root, make):
    builder = make(root, train_frames=4)
    builder.download_and_prepare()
    data = builder.as_dataset()
    videos = {split: 2 * len(data_pairs) * len(FILES) for split, data_pairs in PAIRS.items()}
    assert {split: len(rows) for split, rows in data.items()} == {
        "train": videos["train"] * 4,
        "validation": videos["val"] * 4,
        "test": videos["test"] * 100,
    }
    train = data["train"].filter(lambda row: row["video_id"] == "FaceForensics++/FaceSwap/001_000")
    with h5py.File(root / "FF++_FaceSwap_c40.h5") as file:
        for row in train:
            assert row["frame"] < LENGTH - 1  # the official training reader never draws the last frame
            assert np.array_equal(np.asarray(row["image"]), file["001_000"][row["frame"]])
    assert len(set(train["frame"])) == 4
    assert (row["target_id"], row["source_id"], row["group_id"]) == ("001", "000", "FaceForensics++/000")
    assert not set(data["train"]["group_id"]) & set(data["test"]["group_id"])


def test_two_processes_and_streaming_give_the_same_rows(root, make):
    builder = make(root, split_file="test.json")
    builder.download_and_prepare(num_proc=2)
    rows = builder.as_dataset(split="test")
    streamed = list(builder.as_streaming_dataset(split="test"))
    assert [row["id"] for row in streamed] == rows["id"][:]
    assert all(np.array_equal(row["image"], np.asarray(rows[i]["image"])) for i, row in enumerate(streamed[:20]))


def test_test_only_files_come_first_and_suffice(root, make):
    for path in root.glob("*.h5"):
        path.unlink()
    write(root, suffix="_test_only", splits=("test",))
    builder = make(root)
    splits = builder.inspect(root)
    assert list(splits) == ["test"]
    assert all(unit.path.endswith("_test_only.h5") for unit in splits["test"])
    assert sum("is left out" in finding.message for finding in builder.findings) == 2


def test_counts_are_compared_with_the_official_ones(root, make):
    builder = make(root)
    builder.inspect(root)
    errors = [finding.message for finding in builder.findings if finding.level == "error"]
    assert any(text.startswith("test: 2 real") and "140" in text for text in errors)
    assert len(errors) == 6


def test_missing_file(root, make):
    (root / "FF++_FaceSwap_c40.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"FF\+\+_FaceSwap_c40.*missing in"):
        make(root).inspect(root)


def test_missing_video(root, make):
    with h5py.File(root / "FF++_original_c40.h5", "a") as file:
        del file["006"]
    with pytest.raises(ValueError, match=r"FF\+\+_original_c40\.h5 lacks the test video\(s\) 006"):
        make(root).inspect(root)


def test_video_in_no_list(root, make):
    with h5py.File(root / "FF++_FaceSwap_c40.h5", "a") as file:
        file["900_901"] = file["006_007"][:]
    builder = make(root)
    builder.inspect(root)
    warnings = [finding.message for finding in builder.findings if finding.level == "warning"]
    assert len(warnings) == 1 and "FF++_FaceSwap_c40.h5" in warnings[0] and "900_901" in warnings[0]


def test_short_video(root, make):
    with h5py.File(root / "FF++_Deepfakes_c40.h5", "a") as file:
        del file["006_007"]
        file["006_007"] = np.zeros((99, 6, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"test video 006_007 has 99 frames.* 100"):
        make(root).inspect(root)


def test_wrong_array(root, make):
    with h5py.File(root / "FF++_Deepfakes_c40.h5", "a") as file:
        del file["006_007"]
        file["006_007"] = np.zeros((100, 3, 6, 8), np.float32)
    with pytest.raises(ValueError, match=r"video 006_007 is float32 \(100, 3, 6, 8\)"):
        make(root).inspect(root)


def test_truncated_file(root, make):
    path = root / "FF++_Deepfakes_c40.h5"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"FF\+\+_Deepfakes_c40\.h5 cannot be read as HDF5"):
        make(root).inspect(root)


def test_link_out_of_the_folder(root, make, tmp_path):
    outside = tmp_path / "elsewhere.h5"
    (root / "FF++_original_c40.h5").rename(outside)
    (root / "FF++_original_c40.h5").symlink_to(outside)
    with pytest.raises(ValueError, match=r"\.h5"):
        make(root).inspect(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[["1"]]', "list of pairs"),
        ("[[", "not valid JSON"),
        ('[["006","007"],["006","008"]]', r"\b006\b.*test\.json"),
    ],
)
def test_bad_list(root, make, text, message):
    (root / "splits" / "test.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        make(root).inspect(root)


@pytest.mark.parametrize("options", [{"compression": "raw"}, {"train_frames": 0}])
def test_config_values_are_checked(root, make, options):
    with pytest.raises(ValueError, match="expected"):
        make(root, **options)
