"""DD-VQA as FakeVLM uses it: question n of a video on frame n of the FaceForensics++ video."""

import json

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.data.loading import load_split
from support.folder_tree import save_clip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def copy(tmp_path):
    """Annotations on a real and a fake video, and three frames of each."""
    videos = {"5_000": "original_sequences/youtube", "0_000_001": "manipulated_sequences/Deepfakes"}
    for split, kinds in (("train_set", videos), ("test_set", list(videos)[:1])):
        for stem in kinds:
            verdict = "real" if stem[0] == "5" else "fake"
            questions = {
                str(n): {"question": f"Question {n}?", "answer": [f"The image looks {verdict}. {n}."]} for n in (0, 2)
            }
            folder = tmp_path / "ddvqa" / "annotations" / split / stem[0]
            folder.mkdir(parents=True)
            (folder / f"{stem[0]}.json").write_text(json.dumps({stem: questions}))
    for number, (stem, method) in enumerate(videos.items()):
        for frame in range(3):
            shade = 60 * number + 20 * frame
            path = tmp_path / "ffpp" / method / "c23" / "frames" / stem[2:] / f"{frame:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 12), (shade,) * 3).save(path)
    return tmp_path


def rows(copy, split="train", **options):
    options = {"ffpp_dir": str(copy / "ffpp"), **options}
    return load_split("ddvqa", split, copy / "ddvqa", "fakevlm", options)


def test_question_n_goes_with_frame_n(copy):
    found = {row["id"]: row for row in rows(copy)}
    assert sorted(found) == [f"ddvqa/c23/train/{stem}/explain/{n}" for stem in ("0_000_001", "5_000") for n in (0, 2)]
    row = found["ddvqa/c23/train/0_000_001/explain/2"]
    assert (row["frame"], row["label"], row["question"], row["file_format"]) == (2, 1, "Question 2?", "PNG")
    assert np.asarray(row["image"]).mean() == 60 + 40
    assert row["answers"] == ["The image looks fake. 2."]
    assert len(rows(copy, "test")) == 2


def test_missing_videos_and_frames_are_named(copy):
    frames = copy / "ffpp" / "manipulated_sequences" / "Deepfakes" / "c23" / "frames" / "000_001"
    (frames / "0002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"000_001/2"):
        rows(copy)
    frames.rename(frames.with_name("elsewhere"))
    with pytest.raises(FileNotFoundError, match=r"000_001\.mp4"):
        rows(copy)


def test_the_videos_must_be_named(copy):
    with pytest.raises(ValueError, match="ffpp_dir"):
        rows(copy, ffpp_dir="")


def test_frames_are_read_from_clips(copy):
    container = copy / "ffpp" / "manipulated_sequences" / "Deepfakes" / "c23"
    (container / "frames").rename(container / "other")
    save_clip(container / "videos" / "000_001.mp4")
    row = next(row for row in rows(copy) if row["id"].endswith("0_000_001/explain/2"))
    assert np.asarray(row["image"]).mean() == pytest.approx(210, abs=4)  # 250, then 20 less with each frame
