"""`detect --save-masks` and what it writes."""

import json

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.masks import draw_overlay
from support.tiny_models import tiny_lvlm_dfd


@pytest.fixture(scope="module")
def localiser(tmp_path_factory):
    return tiny_lvlm_dfd(tmp_path_factory.mktemp("localiser"))


def test_masks_are_written_at_the_size_of_their_pictures(shell, localiser, photos, tmp_path):
    masks = tmp_path / "new" / "masks"
    (photos / "broken.png").write_bytes(b"no picture")
    result = shell("detect", photos, "--recursive", "--model", localiser, "--save-masks", masks)
    assert result.exit_code == 1, result.stderr  # one could not be read
    rows = {row["input"]: row for row in map(json.loads, result.stdout.splitlines())}
    good = {name: row for name, row in rows.items() if "error" not in row}
    assert len(rows) == 5 and len(good) == 4
    for name, row in good.items():
        for kind in ("mask", "overlay"):
            assert Image.open(row[kind]).size == Image.open(name).size
        assert Image.open(row["mask"]).mode == "L"
    assert len(list(masks.iterdir())) == 2 * len(good)


def test_pictures_of_one_name_do_not_overwrite_each_other(shell, localiser, photos, tmp_path):
    Image.open(photos / "deeper" / "3.png").save(photos / "deeper" / "0.png")
    pictures = [photos / "0.png", photos / "deeper" / "0.png"]
    result = shell("detect", *pictures, "--model", localiser, "--save-masks", tmp_path / "masks")
    written = [json.loads(line)["mask"] for line in result.stdout.splitlines()]
    assert len(set(written)) == 2
    assert [Image.open(path).size for path in written] == [Image.open(path).size for path in pictures]


def test_without_the_option_rows_hold_no_mask(shell, localiser, photos):
    row = json.loads(shell("detect", photos / "0.png", "--model", localiser).stdout)
    assert "mask" not in row and "overlay" not in row


def test_a_detector_without_masks_says_who_can(shell, model, photos, tmp_path):
    result = shell("detect", photos, "--model", model, "--save-masks", tmp_path / "masks")
    assert result.exit_code == 2 and "LvlmDfdForDeepfakeDetection" in result.stderr
    assert not (tmp_path / "masks").exists()


def test_a_file_in_place_of_the_folder_is_refused(shell, localiser, photos):
    result = shell("detect", photos, "--model", localiser, "--save-masks", photos / "notes.txt")
    assert result.exit_code == 2 and str(photos / "notes.txt") in result.stderr


def test_a_detector_that_cannot_explain_says_who_can(shell, localiser, photos):
    result = shell("detect", photos, "--model", localiser, "--explain")
    assert result.exit_code == 2 and "LvlmDfdForConditionalGeneration" in result.stderr


def test_overlay_shows_where():
    picture = Image.new("RGB", (100, 80), (120, 180, 40))
    mask = Image.new("L", picture.size)
    mask.paste(255, (20, 20, 60, 60))
    values = np.asarray(draw_overlay(picture, mask), dtype=int)
    assert values.shape == (80, 100, 3)
    outside, inside = values[5, 5], values[40, 40]
    assert outside.max() == outside.min(), "the rest of the picture is grey"
    assert inside[0] > inside[1] + 50 and inside[0] > inside[2] + 50
    assert tuple(values[40, 19]) == (255, 235, 0), "the border is drawn around the area"


def test_overlay_of_nothing_is_the_grey_picture():
    picture = Image.effect_noise((60, 40), 80)
    assert np.array_equal(np.asarray(draw_overlay(picture, Image.new("L", (60, 40))))[..., 0], np.asarray(picture))
