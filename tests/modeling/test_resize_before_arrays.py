"""A decoded picture is resized as it is, and the pixels are those of the way through arrays."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor, M2F2DetImageProcessor
from deepfake_detectors.modeling.image_processing_clip_probe import ClipProbeImageProcessor
from support.tiny_clip_probe import PREPROCESSING

SIZES = [(640, 480), (480, 640), (56, 56), (40, 300), (301, 77), (57, 1200), (900, 57), (20, 20), (224, 224)]
SETTINGS = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
PROCESSORS = {
    "m2f2_det": lambda: M2F2DetImageProcessor(**SETTINGS),
    "m2f2_det-pad": lambda: M2F2DetImageProcessor(**SETTINGS, do_pad=True),
    "fakevlm": lambda: FakeVLMImageProcessor(**SETTINGS),
    "fakevlm-square": lambda: FakeVLMImageProcessor(**{**SETTINGS, "size": {"height": 56, "width": 56}}),
    "clip_probe": lambda: ClipProbeImageProcessor(**SETTINGS, heads=PREPROCESSING, default_head="picture"),
    "clip_probe-cut": lambda: ClipProbeImageProcessor(**SETTINGS, heads={"a": {"do_resize": False}}),
    "clip_probe-shrunk": lambda: ClipProbeImageProcessor(**SETTINGS, heads={"a": {"shrink_to": 70}}),
    "clip_probe-plain": lambda: ClipProbeImageProcessor(**SETTINGS),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_are_the_same(name, size) -> None:
    processor = PROCESSORS[name]()
    array = np.random.default_rng(size).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    by_array = processor(array, return_tensors="pt", input_data_format="channels_last")
    by_picture = processor(Image.fromarray(array), return_tensors="pt")
    assert by_array.keys() == by_picture.keys()
    for key, value in by_array.items():
        assert torch.equal(value, by_picture[key])


def test_the_picture_itself_stays_as_it_is() -> None:
    picture = Image.new("RGB", (200, 100), "red")
    PROCESSORS["m2f2_det"]()(picture, return_tensors="pt")
    assert picture.size == (200, 100) and picture.getpixel((199, 99)) == (255, 0, 0)
