"""Masks come at the size of their own picture, and only where they were asked for."""

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from support.pictures import random_pictures
from support.tiny_models import tiny_lvlm_dfd, tiny_lvlm_dfd_llm, tiny_m2f2_det

TASK = "deepfake-detection"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    paths = [str(folder / f"{index}.png") for index in range(3)]
    for picture, path in zip(random_pictures(3), paths, strict=True):
        picture.save(path)
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_lvlm_dfd(tmp_path_factory.mktemp("localiser"))


@pytest.fixture(scope="module")
def localiser(folder):
    return pipeline(TASK, model=str(folder), localize=True)


def as_array(mask):
    return np.asarray(mask, dtype=int)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_masks_in_their_places(localiser, paths, batch_size):
    alone = [localiser(path) for path in paths]
    rows = localiser([paths[0], "missing.png", *paths[1:]], batch_size=batch_size, on_error="record")
    assert "error" in rows.pop(1)
    for row, single, path in zip(rows, alone, paths, strict=True):
        assert row["mask"].mode == "L" and row["mask"].size == Image.open(path).size
        assert np.abs(as_array(row["mask"]) - as_array(single["mask"])).max() <= 1
    assert len({row["mask"].size for row in rows}) == 3, "equal sizes could not show a mistaken order"
    assert as_array(rows[0]["mask"]).std() > 1


def test_mask_is_the_models_own(localiser, paths):
    features = localiser.processor(images=Image.open(paths[0]), return_tensors="pt")
    mask = localiser.model.detect(**features).mask[0]
    expected = localiser.image_processor.mask_to_picture(mask, Image.open(paths[0]).size)
    assert np.array_equal(as_array(localiser(paths[0])["mask"]), as_array(expected))


def test_only_where_asked_for(localiser, paths):
    assert localiser(paths[0], localize=False)["mask"] is None
    assert localiser(paths[:2], localize=False, batch_size=2)[1]["mask"] is None


def test_crop_is_pasted_back(tmp_path):
    detector = pipeline(TASK, model=str(tiny_lvlm_dfd(tmp_path, crop_mode="center_crop")), localize=True)
    mask = as_array(detector(Image.new("RGB", (200, 100), (90, 60, 30)))["mask"])
    assert mask.shape == (100, 200)
    assert (mask[:, :50] == 0).all() and (mask[:, 150:] == 0).all() and (mask[:, 50:150] > 0).any()


def test_turned_pictures_have_turned_masks(localiser, tmp_path):
    picture = random_pictures(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    assert localiser(str(tmp_path / "turned.png"))["mask"].size == picture.size[::-1]


def test_mask_and_explanation_together(tmp_path, paths):
    detector = pipeline(
        TASK, model=str(tiny_lvlm_dfd_llm(tmp_path)), generate_kwargs={"max_new_tokens": 6}, explain=True
    )
    both = detector(paths, localize=True, batch_size=3)
    assert [row["mask"].size for row in both] == [Image.open(path).size for path in paths]
    assert [row["explanation"] for row in both] == [detector(path)["explanation"] for path in paths]
    assert detector(paths[0])["mask"] is None


def test_a_folder_without_language_model_says_who_can_explain(localiser, paths):
    with pytest.raises(ValueError, match=r"LvlmDfdForDeepfakeDetection .* cannot explain .*LvlmDfdForConditionalGen"):
        localiser(paths[0], explain=True)


def test_a_family_without_mask_says_who_can_localise(tmp_path, paths):
    detector = pipeline(TASK, model=str(tiny_m2f2_det(tmp_path)))
    with pytest.raises(ValueError, match=r"M2F2DetForDeepfakeDetection .* cannot localize .*LvlmDfdForDeepfakeDet"):
        detector(paths[0], localize=True)
