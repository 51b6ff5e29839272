"""Region words of LVLM-DFD: from masks, into the official sentences, and back."""

import numpy as np
import pytest

from deepfake_detectors.modeling.regions_lvlm_dfd import (
    REGIONS,
    parse_regions,
    region_area,
    regions_of_mask,
    score_answer,
    verdict_answer,
)
from deepfake_detectors.modeling.verdict_parsing import parse_answer


def mask_of(*names, size=(224, 200), landmarks=None):
    return np.maximum.reduce([region_area(name, *size, landmarks) for name in names]).astype(np.float32)


@pytest.mark.parametrize("name", REGIONS)
def test_a_mask_over_one_region_names_it(name):
    assert regions_of_mask(mask_of(name)) == [name]


def test_several_parts_in_the_order_of_the_list():
    assert regions_of_mask(mask_of("nose", "left eye")) == ["left eye", "nose"]
    assert regions_of_mask(mask_of("left jaw", "right jaw", "left eye", "right cheek")) != []
    assert len(regions_of_mask(mask_of("left jaw", "right jaw", "left eye", "right cheek"))) == 3


def test_left_is_the_left_of_the_picture():
    mask = np.zeros((100, 100), dtype=np.float32)
    mask[35:50, 25:46] = 1
    assert regions_of_mask(mask) == ["left eye"]
    assert regions_of_mask(mask[:, ::-1]) == ["right eye"]


def test_nothing_and_almost_nothing():
    assert regions_of_mask(np.zeros((64, 64), dtype=np.float32)) == []
    speck = np.zeros((64, 64), dtype=np.float32)
    speck[38, 32] = 1
    assert len(regions_of_mask(speck)) == 1


def test_landmarks_move_the_regions():
    generator = np.random.default_rng(0)
    landmarks = generator.uniform(20, 30, (68, 2))
    landmarks[36:42] = [[100, 100], [110, 98], [120, 100], [118, 104], [110, 106], [102, 104]]
    assert region_area("left eye", 150, 150, landmarks)[102, 110]
    assert not region_area("left eye", 150, 150, landmarks)[25, 25]
    with pytest.raises(ValueError, match="68 or 81 points"):
        region_area("nose", 100, 100, landmarks[:5])


@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        ("Yes. This is a deepfake image, the artifact is at the left eye, nose_ridge of the image.",
         ["left eye", "nose_ridge"], []),
        ("The forgery score is 98% for this image. The artifact is at the left eye, left cheek of the image.",
         ["left eye", "left cheek"], []),
        ("The forgery score is 100%. The artifact is at Nose Ridge and chin", ["nose_ridge"], ["chin"]),
        ("No, this is not a deepfake image. The nose looks natural.", [], []),
    ],
)  # fmt: skip
def test_answers_are_read(text, known, unknown):
    assert parse_regions(text) == (known, unknown)


@pytest.mark.parametrize("mode", ["robust", "legacy"])
def test_official_sentences_are_read_as_they_are_meant(mode):
    fake, real = verdict_answer(True, ["nose", "left jaw"]), verdict_answer(False)
    assert parse_regions(fake) == (["nose", "left jaw"], [])
    assert (parse_answer(fake, mode), parse_answer(real, mode)) == ("fake", "real")
    assert parse_regions(score_answer(98, ["nose"])) == (["nose"], [])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: verdict_answer(True, ["chin"]), "'chin' is not a region; allowed are left eye"),
        (lambda: verdict_answer(False, ["nose"]), "nose"),
        (lambda: score_answer(101), "percent is 101"),
        (lambda: region_area("chin", 10, 10), "'chin' is not a region"),
        (lambda: regions_of_mask(np.zeros((2, 3, 4))), "expected \\(height, width\\)"),
    ],
)
def test_what_is_not_on_the_list_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
