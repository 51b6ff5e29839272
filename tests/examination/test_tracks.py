"""Faces that overlap are one track, and the rules that make one score of many."""

from dataclasses import dataclass

import pytest

from deepfake_detectors.examination.faces import Face
from deepfake_detectors.examination.tracks import MIN_TRACK_FRAMES, POOLING, link_faces, pool


@dataclass(frozen=True)
class At:
    index: int

    @property
    def seconds(self):
        return self.index / 2


def face(left, top=0, side=100):
    return Face((left, top, left + side, top + side), None, 0.9)


def linked(*frames, **options):
    """Lists of the left edges of every track, with the numbers of its frames."""
    moments = [(At(number), [face(*place) for place in places]) for number, places in enumerate(frames)]
    return [(track.frames, [box[0] for box in track.boxes]) for track in link_faces(moments, **options)]


def test_faces_that_move_a_little_are_one_track():
    assert linked([(0,)], [(20,)], [(45,)]) == [((0, 1, 2), [0, 20, 45])]


def test_two_people_stay_apart_whatever_order_they_are_found_in():
    assert linked([(0,), (300,)], [(310,), (10,)], [(20,), (320,)]) == [
        ((0, 1, 2), [0, 10, 20]),
        ((0, 1, 2), [300, 310, 320]),
    ]


def test_the_pair_that_overlaps_most_is_linked_first():
    # 30 overlaps both with 0 (0.54) and with 60 (0.54 less); 61 is closer to 60.
    assert linked([(0,), (60,)], [(30,), (61,)]) == [((0, 1), [0, 30]), ((0, 1), [60, 61])]


def test_a_track_survives_two_frames_without_its_face_and_no_more():
    assert linked([(0,)], [], [], [(10,)]) == [((0, 3), [0, 10])]
    assert linked([(0,)], [], [], [], [(10,)]) == [((0,), [0]), ((4,), [10])]


def test_a_jump_begins_a_new_track():
    assert linked([(0,)], [(90,)]) == [((0,), [0]), ((1,), [90])]
    assert linked([(0,)], [(90,)], min_overlap=0.05) == [((0, 1), [0, 90])]


def test_tracks_have_numbers_times_and_enough_frames_or_not():
    first, second = link_faces([(At(number), [face(0), *([face(300)] if number else [])]) for number in range(4)])
    assert (first.id, second.id) == (1, 2)
    assert first.seconds == (0, 0.5, 1.0, 1.5)
    assert len(first.frames) == MIN_TRACK_FRAMES == 4
    assert (first.conclusive, second.conclusive) == (True, False)
    assert link_faces([]) == []


@pytest.mark.parametrize(
    ("rule", "expected"), [("mean", 0.55), ("max", 1.0), ("top-k", (0.8 + 0.9 + 1.0) / 3), ("trimmed", 0.55)]
)
def test_pooling(rule, expected):
    assert pool([0.1 * number for number in range(10, 0, -1)], rule) == pytest.approx(expected)


def test_trimming_drops_the_outliers():
    scores = [0.5] * 18 + [1.0, 0.0]
    assert pool(scores, "trimmed") == 0.5
    assert pool([0.2, 0.9, 0.1], "trimmed") == pytest.approx(0.4)
    assert pool([0.2, 0.9, 0.1], "top-k") == 0.9


def test_pooling_refuses_what_it_cannot_do():
    assert set(POOLING) == {"mean", "max", "top-k", "trimmed"}
    with pytest.raises(ValueError, match="median"):
        pool([0.5], "median")
    with pytest.raises(ValueError, match="without"):
        pool([])
