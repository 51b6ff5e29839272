"""Pixels do not depend on which direction the installed Pillow resizes first."""

import numpy as np
import pytest
from PIL import Image

from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor

SIDE = 64
EDGE = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
PROCESSORS = {
    "shortest_edge": lambda: FakeVLMImageProcessor(**EDGE),
    "statistics": lambda: AntifakePromptImageProcessor(**EDGE),
    "squash": lambda: LvlmDfdImageProcessor(size={"height": SIDE, "width": SIDE}),
}
# width, height, what is resized first where both edges become `target`
PICTURES = {"loses rows": (65, 90, "height"), "loses columns": (90, 65, "width"), "loses both": (90, 100, "width")}


def two_passes(picture: Image.Image, target: tuple[int, int], first: str) -> np.ndarray:
    """Each pass changes one direction only, which every Pillow does alike."""
    between = (picture.width, target[1]) if first == "height" else (target[0], picture.height)
    resized = picture.resize(between, Image.Resampling.BICUBIC).resize(target, Image.Resampling.BICUBIC)
    return np.asarray(resized).transpose(2, 0, 1)


@pytest.mark.parametrize("shape", PICTURES)
@pytest.mark.parametrize("name", PROCESSORS)
def test_the_order_is_that_of_the_reference_outputs(name, shape):
    width, height, first = PICTURES[shape]
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    target = (SIDE, SIDE)
    if name != "squash":  # the short edge becomes SIDE, the long one keeps the ratio
        target = (SIDE, int(SIDE * height / width)) if width < height else (int(SIDE * width / height), SIDE)
        rows, columns = height - target[1], width - target[0]
        first = "height" if rows > 2 * columns else "width"
    pixels = PROCESSORS[name]()(
        picture, do_rescale=False, do_normalize=False, do_center_crop=False, return_tensors="np"
    )["pixel_values"][0]
    other = "width" if first == "height" else "height"
    assert np.array_equal(pixels, two_passes(picture, target, first))
    assert not np.array_equal(pixels, two_passes(picture, target, other)), "orders that agree could not show one"
