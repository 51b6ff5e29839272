"""Parity of AntifakePrompt's picture preprocessing: resize, half-even crop, statistics."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from support.golden_files import golden_folder

FOLDER = golden_folder("antifakeprompt")
GOLDEN = json.loads((FOLDER / "config.json").read_text())
CASES = GOLDEN["preprocess"]
IDS = [case["name"] for case in CASES]


@pytest.fixture(scope="module")
def goldens():
    return load_file(FOLDER / "preprocess_goldens.safetensors")


def processor(case, **options):
    size = case["image_size"]
    return AntifakePromptImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=GOLDEN["mean"],
        image_std=GOLDEN["std"],
        **options,
    )


def picture_of(goldens, case):
    return Image.fromarray(goldens[f"{case['name']}.raw"].numpy(), mode=case["mode"])


def bytes_of(goldens, case, **options):
    raw = processor(case, do_rescale=False, do_normalize=False, **options)
    return raw(picture_of(goldens, case), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)


def test_antifakeprompt_every_preprocess_tensor_is_checked():
    with safe_open(FOLDER / "preprocess_goldens.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == {f"{name}.{kind}" for name in IDS for kind in ("raw", "crop_uint8", "pixel_values")}


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_antifakeprompt_crop_is_equal(case, goldens):
    assert np.array_equal(bytes_of(goldens, case).astype(np.uint8), goldens[f"{case['name']}.crop_uint8"].numpy())


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_antifakeprompt_normalised_values(case, goldens):
    pixels = processor(case)(picture_of(goldens, case), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(pixels, goldens[f"{case['name']}.pixel_values"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_antifakeprompt_fast_backend_differs_by_two_levels_at_most(case, goldens):
    exact, fast = (bytes_of(goldens, case, fast=fast).astype(np.int16) for fast in (False, True))
    difference = np.abs(exact - fast)
    assert difference.max() <= 2


def test_antifakeprompt_floor_rounding_is_one_pixel_off(goldens):
    moved = [case for case in CASES if any((side - case["image_size"]) % 4 == 3 for side in case["resized_hw"])]
    assert moved, "no golden has a margin of 3 modulo 4"
    for case in moved:
        assert not np.array_equal(bytes_of(goldens, case, crop_rounding="floor"), bytes_of(goldens, case))
