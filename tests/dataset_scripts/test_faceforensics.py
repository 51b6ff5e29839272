"""FaceForensics++ tree: splits, names, sources of frames, defects."""

import json

import numpy as np
import pytest
from datasets.exceptions import DatasetGenerationError

from deepfake_detectors.dataset_scripts._releases import CROSSING_PAIRS
from deepfake_detectors.dataset_scripts.faceforensics import METHODS, OFFICIAL_METHODS, FaceForensics
from support.folder_tree import save, save_clip

PAIRS = {"train": [["000", "001"], ["756", "002"]], "val": [["004", "005"]], "test": [["007", "755"]]}
FRAMES = 12


def names(real, splits=tuple(PAIRS)):
    pairs = [pair for split in splits for pair in PAIRS[split]]
    return [v for p in pairs for v in p] if real else [f"{a}_{b}" for p in pairs for a, b in (p, p[::-1])]


def container(root, method, level="c23"):
    return root / ("original_sequences/youtube" if method == "real" else f"manipulated_sequences/{method}") / level


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "ffpp"
    folder.mkdir()
    for split, pairs in PAIRS.items():
        (folder / f"{split}.json").write_text(json.dumps(pairs))
    return folder


@pytest.fixture
def frames(root):
    for method in ("real", *OFFICIAL_METHODS):
        for video in names(method == "real"):
            for number in range(FRAMES):
                save(container(root, method) / "frames" / video / f"{number}.png", (8, 8))
    return root


def make(root, tmp_path, config="c23", **options):
    return FaceForensics(config_name=config, data_dir=str(root), cache_dir=str(tmp_path / "cache"), **options)


def messages(builder, level):
    return [finding.message for finding in builder.findings if finding.level == level]


def test_frames(frames, tmp_path):
    builder = make(frames, tmp_path, frames_per_video=3)
    builder.download_and_prepare()
    data = builder.as_dataset()
    classes = 1 + len(OFFICIAL_METHODS)
    assert {split: len(rows) for split, rows in data.items()} == {
        "train": 4 * classes * 3,
        "validation": 2 * classes * 3,
        "test": 2 * classes * 3,
    }
    rows = data["test"].filter(lambda row: row["video_id"] == "FaceForensics++/FaceSwap/755_007")
    assert rows["frame"][:] == [0, 6, 11]  # by number, not by name: 9 comes before 10
    assert rows["id"][0] == "ffpp/c23/FaceSwap/755_007/0"
    assert (rows[0]["label"], rows[0]["family"], rows[0]["target_id"], rows[0]["source_id"]) == (
        1,
        "swap",
        "755",
        "007",
    )
    assert data["test"]["manipulation"][: 2 * 3] == ["real"] * 6


def test_same_video_ids_as_the_hdf5_form(frames, tmp_path):
    units = make(frames, tmp_path).inspect(frames)["test"]
    assert units[0].columns["video_id"] == "FaceForensics++/real/007"


def test_known_crossing_pair_is_reported_and_grouped(frames, tmp_path):
    builder = make(frames, tmp_path)
    splits = builder.inspect(frames)
    assert ("755", "756") in CROSSING_PAIRS
    assert any("755 (test) / 756 (train)" in text for text in messages(builder, "warning"))
    group = {unit.columns["target_id"]: unit.columns["group_id"] for units in splits.values() for unit in units}
    assert group["755"] == group["756"] == group["002"] != group["000"]


def test_counts_against_the_official_ones(frames, tmp_path):
    builder = make(frames, tmp_path)
    builder.inspect(frames)
    assert any(text.startswith("validation: 8 fake videos") and "560" in text for text in messages(builder, "error"))


def test_missing_and_extra_videos(frames, tmp_path):
    folder = container(frames, "FaceSwap") / "frames"
    (folder / "007_755").rename(folder / "998_999")
    builder = make(frames, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"FaceSwap/c23/frames/007_755"):
        builder.download_and_prepare()
    assert any("998_999" in text for text in messages(builder, "warning"))
    partial = make(frames, tmp_path, allow_missing=True, frames_per_video=1)
    partial.download_and_prepare()
    assert len(partial.as_dataset(split="test")) == 9


def test_video_without_frames_is_missing(frames, tmp_path):
    for path in (container(frames, "FaceSwap") / "frames" / "007_755").iterdir():
        path.unlink()
    builder = make(frames, tmp_path)
    builder.inspect(frames)
    assert any("007_755 (no frames)" in text for text in messages(builder, "error"))


def test_classes_from_different_sources_are_refused(frames, tmp_path):
    folder = container(frames, "FaceSwap")
    (folder / "frames").rename(folder / "images")
    with pytest.raises(ValueError, match="no common source of frames"):
        make(frames, tmp_path).inspect(frames)


def test_faceshifter_on_request_and_raw_under_its_other_name(root, tmp_path):
    for method in ("real", "FaceShifter"):
        for video in names(method == "real"):
            save(container(root, method, "c0") / "images" / video / "0000.png")
    splits = make(root, tmp_path, "raw", methods=("FaceShifter",)).inspect(root)
    assert {split: len(units) for split, units in splits.items()} == {"train": 8, "validation": 4, "test": 4}


def test_clips(root, tmp_path):
    pytest.importorskip("av")
    for method in ("real", "Deepfakes"):
        for video in names(method == "real"):
            save_clip(container(root, method, "c40") / "videos" / f"{video}.mp4")
    builder = make(root, tmp_path, "c40", methods=("Deepfakes",), frames_per_video=3)
    builder.download_and_prepare()
    rows = builder.as_dataset(split="test")
    assert len(rows) == 4 * 3
    assert rows["frame"][:3] == [0, 2, 5]
    for row in rows.select(range(3)):
        assert abs(int(np.asarray(row["image"]).mean()) - (250 - 20 * row["frame"])) < 6


def test_truncated_clip(root, tmp_path):
    pytest.importorskip("av")
    for method in ("real", "Deepfakes"):
        for video in names(method == "real"):
            save_clip(container(root, method) / "videos" / f"{video}.mp4")
    path = container(root, "Deepfakes") / "videos" / "000_001.mp4"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetGenerationError) as caught:
        make(root, tmp_path, methods=("Deepfakes",)).download_and_prepare()
    assert "000_001.mp4 cannot be decoded" in str(caught.value.__cause__)


def test_truncated_frame(frames, tmp_path):
    path = container(frames, "FaceSwap") / "frames" / "007_755" / "0.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DatasetGenerationError) as caught:
        make(frames, tmp_path).download_and_prepare()
    assert "007_755/0.png (40 bytes) cannot be decoded" in str(caught.value.__cause__)


def test_links(frames, tmp_path):
    folder = container(frames, "FaceSwap") / "frames" / "007_755"
    folder.rename(tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="007_755 is a link to a folder"):
        make(frames, tmp_path).inspect(frames)


def test_missing_list(frames, tmp_path):
    (frames / "val.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"val\.json is missing"):
        make(frames, tmp_path).inspect(frames)


def test_video_in_two_lists(frames, tmp_path):
    (frames / "val.json").write_text('[["000", "005"]]')
    with pytest.raises(ValueError, match=r"\b000\b.*val\.json.*train\.json"):
        make(frames, tmp_path).inspect(frames)


@pytest.mark.parametrize(
    "options", [{"compression": "c10"}, {"methods": ("Nope",)}, {"source": "zip"}, {"frames_per_video": -1}]
)
def test_config_values_are_checked(root, tmp_path, options):
    with pytest.raises(ValueError, match="expected"):
        make(root, tmp_path, **options)


def test_every_method_has_a_family():
    assert set(METHODS.values()) == {"swap", "reenact"}
