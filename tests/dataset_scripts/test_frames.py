"""Frames and masks: from folders and from clips, always the right pair."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.data.registry import make_builder
from deepfake_detectors.dataset_scripts._frames import count_frames, frame_key, natural_order, read_frames, spread
from support.folder_tree import save, save_clip
from support.raw_trees import decomposed
from support.raw_trees_videos import UADFV as WithoutMasks
from support.raw_trees_videos import FaceForensics as Tree

FAKE = "manipulated_sequences/Deepfakes"
REAL = "original_sequences/youtube"


def rows(root, dataset="faceforensics", **options):
    builder = make_builder(dataset, root, None, {"methods": ("Deepfakes",), **options})
    splits = builder.inspect(root)
    return [row for units in splits.values() for unit in units for row in builder.examples(unit)], builder


def draw(path, number, size=(6, 4)):
    """A mask whose grey level is the number of its frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 10 * number).save(path)


@pytest.fixture
def root(tmp_path):
    Tree().write(tmp_path / "ff")
    return tmp_path / "ff"


class TestFolders:
    @pytest.fixture
    def masked(self, root):
        for folder in (root / FAKE / "c23/frames").iterdir():
            for number in range(2):
                draw(root / FAKE / f"c23/masks/{folder.name}/{number}.png", number)  # other zeros than the frame
        return root

    def test_each_frame_has_its_mask(self, masked):
        found, builder = rows(masked, masks=True)
        assert "mask" in builder.info.features
        for row in found:
            if row["label"] == "real":
                assert row["mask"] is None
            else:
                assert np.asarray(row["mask"]).max() == np.asarray(row["mask"]).min() == 10 * row["frame"]

    def test_only_on_request(self, masked):
        found, builder = rows(masked)
        assert not any("mask" in row for row in found)
        assert "mask" not in builder.info.features

    def test_missing_mask(self, masked):
        (masked / FAKE / "c23/masks/000_001/1.png").unlink()
        builder = make_builder("faceforensics", masked, None, {"methods": ("Deepfakes",), "masks": True})
        with pytest.raises(FileNotFoundError, match=r"c23/masks/000_001/001\.png \(mask\)"):
            builder.as_streaming_dataset()
        found, _ = rows(masked, masks=True, allow_missing=True)
        empty = [row["id"] for row in found if row["label"] == "fake" and row["mask"] is None]
        assert empty == ["ffpp/c23/Deepfakes/000_001/001"]

    def test_missing_folder(self, masked):
        shutil.rmtree(masked / FAKE / "c23/masks/000_001")
        builder = make_builder("faceforensics", masked, None, {"methods": ("Deepfakes",), "masks": True})
        with pytest.raises(FileNotFoundError, match=r"000_001 \(masks\)"):
            builder.as_streaming_dataset()

    def test_other_size(self, masked):
        draw(masked / FAKE / "c23/masks/000_001/1.png", 1, size=(5, 5))
        with pytest.raises(ValueError, match=r"000_001/001\.png: the mask is \(5, 5\), its image \(6, 4\)"):
            rows(masked, masks=True)

    def test_truncated(self, masked):
        path = masked / FAKE / "c23/masks/000_001/1.png"
        path.write_bytes(path.read_bytes()[:30])
        with pytest.raises(ValueError, match=r"masks/000_001/1\.png .*cannot be decoded"):
            rows(masked, masks=True)

    def test_link_out_of_the_tree(self, masked, tmp_path):
        path = masked / FAKE / "c23/masks/000_001"
        path.rename(tmp_path / "outside")
        path.mkdir()
        (path / "0.png").symlink_to(tmp_path / "outside" / "0.png")
        with pytest.raises(ValueError, match=r"0\.png"):
            rows(masked, masks=True)

    def test_compressed_more_strongly_shares_them(self, masked):
        for folder in (masked / REAL, masked / FAKE):
            shutil.copytree(folder / "c23/frames", folder / "c40/frames")
        builder = make_builder("faceforensics", masked, "c40", {"methods": ("Deepfakes",), "masks": True})
        splits = builder.inspect(masked)
        fakes = [unit for units in splits.values() for unit in units if unit.columns["label"] == "fake"]
        assert all("c23/masks" in unit.masks for unit in fakes)


def test_files_of_another_kind_are_told(root):
    folder = root / FAKE / "c23/frames"
    found = [folder / "notes.md", folder / "000_001/000.npy", save(folder / "000_001/deeper/000.png", (6, 4))]
    for path in found[:2]:
        path.write_text("x")
    (root / FAKE / "c23/frames/.DS_Store").write_text("x")
    _, builder = rows(root)
    (told,) = [finding.message for finding in builder.findings if "unsupported" in finding.message]
    assert told.startswith("3 ")
    assert all(str(path) in told for path in found)


def test_two_folders_of_one_name(root):
    for form in ("é", decomposed("é")):
        save(root / FAKE / "c23/frames" / form / "000.png", (6, 4))
    with pytest.raises(ValueError, match="same video"):
        rows(root)


class TestClips:
    """The tree as downloaded: clips, and one clip of masks per fake."""

    LENGTH = 6

    @pytest.fixture
    def clips(self, root):
        pytest.importorskip("av")
        for folder in (root / REAL, root / FAKE):
            for video in sorted((folder / "c23/frames").iterdir()):
                save_clip(folder / f"c23/videos/{video.name}.mp4", self.LENGTH)
                if folder.name == "Deepfakes":
                    save_clip(folder / f"masks/videos/{video.name}.mp4", self.LENGTH)
            shutil.rmtree(folder / "c23/frames")
        return root

    @pytest.mark.parametrize("wanted", [0, 3])
    def test_masks_of_the_same_frames(self, clips, wanted):
        found, _ = rows(clips, masks=True, frames_per_video=wanted)
        fakes = [row for row in found if row["label"] == "fake"]
        assert [row["frame"] for row in fakes[: wanted or 6]] == ([0, 2, 5] if wanted else list(range(6)))
        for row in fakes:  # every clip darkens by 20 from frame to frame
            assert abs(np.asarray(row["mask"]).mean() - (250 - 20 * row["frame"])) < 6
        assert all(row["mask"] is None for row in found if row["label"] == "real")

    def test_masks_that_end_early(self, clips):
        save_clip(clips / FAKE / "masks/videos/000_001.mp4", 3)
        with pytest.raises(ValueError, match=r"000_001\.mp4 has 3 frames .*frame 5"):
            rows(clips, masks=True, frames_per_video=3)
        found, _ = rows(clips, masks=True, frames_per_video=3, allow_missing=True)
        masks = [row["mask"] for row in found if "Deepfakes/000_001" in row["id"]]
        assert [mask is not None for mask in masks] == [True, True, False]

    def test_truncated(self, clips):
        path = clips / FAKE / "c23/videos/000_001.mp4"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=r"000_001\.mp4 (cannot be decoded|ends before|has no frames)"):
            rows(clips)

    def test_file_that_is_no_clip_is_told(self, clips):
        (clips / FAKE / "c23/videos/000_001.part").write_text("x")
        _, builder = rows(clips, frames_per_video=1)
        assert any("000_001.part" in finding.message for finding in builder.findings)

    def test_link_out_of_the_tree(self, clips, tmp_path):
        path = clips / FAKE / "c23/videos/000_001.mp4"
        path.rename(tmp_path / "outside.mp4")
        path.symlink_to(tmp_path / "outside.mp4")
        with pytest.raises(ValueError, match=r"000_001\.mp4"):
            rows(clips)

    def test_one_video_in_two_containers(self, clips):
        shutil.copy(clips / FAKE / "c23/videos/000_001.mp4", clips / FAKE / "c23/videos/000_001.mkv")
        with pytest.raises(ValueError, match=r"000_001\.mp4 and .*000_001\.mkv are the same video"):
            rows(clips)

    def test_reading_numbers(self, tmp_path):
        pytest.importorskip("av")
        path = save_clip(tmp_path / "a.mp4", 5)
        assert count_frames(path) == 5
        assert len(list(read_frames(path, [1, 4]))) == 2
        with pytest.raises(ValueError, match="ends before frame 5"):
            list(read_frames(path, [1, 5]))


def test_masks_of_a_listed_file(tmp_path):
    frame = "FaceForensics++/manipulated_sequences/frames/Deepfakes/c40/frames/000_001/003.png"  # "frames" twice
    save(tmp_path / frame, (6, 4))
    draw(tmp_path / "FaceForensics++/manipulated_sequences/frames/Deepfakes/c23/masks/000_001/003.png", 3)
    fake = {"label": "FF-DF", "frames": [frame], "masks": ["somewhere/000.png"]}
    (tmp_path / "x.json").write_text(json.dumps({"FF-DF": {"FF-DF": {"test": {"c40": {"000_001": fake}}}}}))
    builder = make_builder("deepfakebench", tmp_path, None, {"json": "x.json", "masks": True, "compression": "c40"})
    (unit,) = builder.inspect(tmp_path)["test"]
    (row,) = builder.examples(unit)
    assert np.asarray(row["mask"]).max() == 30


def test_masks_that_nobody_ships(tmp_path):
    WithoutMasks().write(tmp_path / "u")
    with pytest.raises(ValueError, match=r"UADFV .*masks"):
        make_builder("uadfv", tmp_path / "u", None, {"masks": True})


@pytest.mark.parametrize(("count", "wanted", "chosen"), [(5, 0, [0, 1, 2, 3, 4]), (5, 3, [0, 2, 4]), (2, 9, [0, 1])])
def test_spread(count, wanted, chosen):
    assert spread(count, wanted) == chosen


def test_order_and_keys():
    assert sorted(["10.png", "9.png", "seed10.png", "seed9.png"], key=natural_order) == [
        "9.png", "10.png", "seed9.png", "seed10.png",
    ]  # fmt: skip
    assert frame_key("003.png") == frame_key("3.jpg") == 3
    assert frame_key("seed3.png") == "seed3"
