"""Parity of FakeVLM's picture preprocessing, both routes, every golden tensor."""

import re

import pytest
import torch
from PIL import Image
from PIL import __version__ as pillow
from safetensors import safe_open
from safetensors.torch import load_file

from deepfake_detectors.modeling.image_processing_clip import FakeVLMImageProcessor
from support.comparison import assert_within
from support.fakevlm_folders import read_config
from support.golden_files import golden_folder

FOLDER = golden_folder("fakevlm")
GOLDEN = load_file(FOLDER / "preprocess.safetensors")
SETTINGS = read_config(FOLDER)["image_processor"]
with safe_open(FOLDER / "preprocess.safetensors", "pt") as file:
    NAMES = sorted(name for name in file.keys() if not name.startswith("raw_"))
# Pillow 13 rounds strongly reduced pictures differently (goldens' README).
TOLERANCE = 1e-5 if int(pillow.split(".")[0]) <= 12 else 0.05
TORCHVISION_TOLERANCE = 0.03
SUBSAMPLED = re.compile(r"pixel_values_(pad|crop)(\d+)_every(\d+)_(\d+)")
PLAIN = re.compile(r"pixel_values_(pad|crop)_(\d+)")
SQUARE = re.compile(r"padded_square_(\d+)")


def processor(route, size=None, **options):
    size = size or SETTINGS["crop_size"]["height"]
    return FakeVLMImageProcessor(
        **{**SETTINGS, "size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}},
        do_pad=route == "pad",
        **options,
    )


def picture(index):
    return Image.fromarray(GOLDEN[f"raw_{index}"].numpy())


def computed(name, **options):
    if match := SUBSAMPLED.fullmatch(name):
        route, size, step, index = match[1], int(match[2]), int(match[3]), match[4]
        pixels = processor(route, size, **options)(picture(index), return_tensors="pt")["pixel_values"][0]
        return pixels[:, ::step, ::step]
    if match := PLAIN.fullmatch(name):
        return processor(match[1], **options)(picture(match[2]), return_tensors="pt")["pixel_values"][0]
    match = SQUARE.fullmatch(name)
    assert match, "a golden tensor that this test does not reproduce"
    only_pad = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
    padded = processor("pad", **only_pad)(picture(match[1]), return_tensors="pt")["pixel_values"][0]
    return padded.permute(1, 2, 0)


@pytest.mark.parametrize("name", NAMES)
def test_fakevlm_pixels(name):
    assert_within(
        computed(name).to(GOLDEN[name].dtype), GOLDEN[name], 0 if GOLDEN[name].dtype == torch.uint8 else TOLERANCE
    )


@pytest.mark.parametrize("name", [name for name in NAMES if not SQUARE.fullmatch(name)])
def test_fakevlm_pixels_on_torchvision(name):
    assert_within(computed(name, fast=True), GOLDEN[name], TORCHVISION_TOLERANCE)
