"""What no detector was tested on is seen before it is judged; photographs pass."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from deepfake_detectors.examination.checks import CHECKS, MIN_SIDE, check_image
from deepfake_detectors.files import walk_folder
from deepfake_detectors.modeling.image_loading import load_image
from support.drawn_pages import drawn_page
from support.real_data import needs_real_data, real_data

PAGES = 30


@pytest.mark.parametrize(
    ("kind", "names"),
    [("blank", {"blank"}), ("text", {"drawing or document"}), ("drawing", {"drawing or document"})],
)
def test_nine_of_ten_pages_are_seen(kind, names):
    checks = [check_image(drawn_page(kind, seed)) for seed in range(5000, 5000 + PAGES)]
    hits = [check for check in checks if check is not None and check.name in names and not check.applicable]
    assert len(hits) >= 0.9 * PAGES


def test_light_strokes_on_dark_ground_are_a_drawing_too():
    pages = [ImageOps.invert(drawn_page("drawing", seed)) for seed in range(5000, 5010)]
    assert sum(check_image(page) is not None for page in pages) >= 9


@needs_real_data
@pytest.mark.parametrize("name", ["photos_imagenet_sample", "photos_professional", "faces_stylegan2"])
def test_photographs_pass(name):
    files = walk_folder(real_data(name) / "real", recursive=True).files[::3]
    fired = [file.name for file in files if check_image(load_image(file)) is not None]
    assert len(fired) <= 0.02 * len(files), fired


def textured(width, height):
    """Blocks of random shades, as far from a page as a photograph."""
    blocks = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def test_small_pictures():
    check = check_image(textured(MIN_SIDE - 1, 300))
    assert (check.name, check.applicable, check.measured["short_side"]) == ("too small", False, MIN_SIDE - 1)
    assert check_image(textured(MIN_SIDE, 300)) is None


def test_enlarged_pictures_get_a_remark_and_may_be_judged():
    assert check_image(textured(200, 300), seen_side=200) is None
    check = check_image(textured(200, 300), seen_side=224)
    assert (check.name, check.applicable) == ("upscaled", True)
    assert "200" in check.reason and "224" in check.reason


@pytest.mark.parametrize("shade", [0, 127, 255])
def test_one_shade_is_blank(shade):
    check = check_image(Image.new("RGB", (300, 200), (shade,) * 3))
    assert check.name == "blank"
    assert check.name in CHECKS
    assert check.measured["range"] == 0
