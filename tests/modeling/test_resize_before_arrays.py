"""A decoded picture is resized as it is, and the pixels are those of the way through arrays."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from transformers import LlavaImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from deepfake_detectors.modeling.image_loading import load_image
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor, M2F2DetImageProcessor
from deepfake_detectors.modeling.image_processing_clip_probe import ClipProbeImageProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from support.tiny_clip_probe import PREPROCESSING

SIZES = [(640, 480), (480, 640), (56, 56), (40, 300), (301, 77), (57, 1200), (900, 57), (20, 20), (224, 224)]
SQUARE = {"size": {"height": 56, "width": 56}}
SETTINGS = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
PROCESSORS = {
    "m2f2_det": lambda: M2F2DetImageProcessor(**SETTINGS),
    "m2f2_det-pad": lambda: M2F2DetImageProcessor(**SETTINGS, do_pad=True),
    "fakevlm": lambda: FakeVLMImageProcessor(**SETTINGS),
    "fakevlm-pad": lambda: FakeVLMImageProcessor(**SETTINGS, do_pad=True),
    "fakevlm-pad-whole": lambda: FakeVLMImageProcessor(**SETTINGS, do_pad=True, do_resize=False, do_center_crop=False),
    "antifakeprompt": lambda: AntifakePromptImageProcessor(**SETTINGS),
    "lvlm_dfd": lambda: LvlmDfdImageProcessor(**SQUARE),
    "lvlm_dfd-crop": lambda: LvlmDfdImageProcessor(**SQUARE, crop_mode="center_crop"),
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


MODES = ("L", "LA", "RGB", "RGBA", "P", "CMYK", "1", "RGB with a transparent colour")


def picture_of(mode: str, width: int = 300, height: int = 211) -> Image.Image:
    array = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(array)
    if "with" in mode:
        image.info["transparency"] = tuple(int(value) for value in array[0, 0])
        return image
    image = image.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(array[..., 0]))
    return image


STOCK = {
    "fakevlm": (FakeVLMImageProcessor, LlavaImageProcessorPil, SETTINGS),
    "fakevlm-pad": (FakeVLMImageProcessor, LlavaImageProcessorPil, {**SETTINGS, "do_pad": True}),
    "m2f2_det": (M2F2DetImageProcessor, LlavaImageProcessorPil, SETTINGS),
    "lvlm_dfd": (LvlmDfdImageProcessor, CLIPImageProcessorPil, {**SQUARE, "do_center_crop": False}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", STOCK)
def test_pixels_are_those_of_the_library(name, mode) -> None:
    ours, stock, settings = STOCK[name]
    for size in ((300, 211), (211, 300)):
        image = picture_of(mode, *size)
        found = ours(**settings)(image, return_tensors="pt")["pixel_values"]
        expected = stock(**settings)(image, return_tensors="pt")["pixel_values"]
        assert (found - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("do_pad", [False, True])
def test_the_fast_backend_is_torchvision(do_pad) -> None:
    image = picture_of("RGB")
    found = FakeVLMImageProcessor(**SETTINGS, do_pad=do_pad, fast=True)(image, return_tensors="pt")["pixel_values"]
    expected = LlavaImageProcessor(**SETTINGS, do_pad=do_pad)(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(found, expected)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


FILES = {
    "L.jpg": lambda: (picture_of("L"), {}),
    "RGB.jpg": lambda: (picture_of("RGB"), {}),
    "CMYK.jpg": lambda: (picture_of("CMYK"), {}),
    "turned.jpg": lambda: (picture_of("RGB"), {"exif": _turned()}),
    "P.png": lambda: (picture_of("P"), {}),
    "RGBA.png": lambda: (picture_of("RGBA"), {}),
    "16-bit.png": lambda: (Image.fromarray(np.arange(300 * 211, dtype=np.uint16).reshape(211, 300)), {}),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("processor", ["m2f2_det-pad", "fakevlm-pad", "antifakeprompt", "lvlm_dfd", "clip_probe"])
def test_what_is_loaded_gives_the_pixels_of_its_array(processor, name) -> None:
    image, options = FILES[name]()
    file = BytesIO()
    image.save(file, {"jpg": "JPEG", "png": "PNG"}[name.rpartition(".")[2]], **options)
    loaded = load_image(file.getvalue())
    assert loaded.size == ((211, 300) if name == "turned.jpg" else (300, 211))
    prepare = PROCESSORS[processor]()
    by_array = prepare(np.asarray(loaded), return_tensors="pt", input_data_format="channels_last")
    by_picture = prepare(loaded, return_tensors="pt")
    for key, value in by_array.items():
        assert torch.equal(value, by_picture[key])
