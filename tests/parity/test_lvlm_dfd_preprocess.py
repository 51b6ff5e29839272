"""Both ways to make LVLM-DFD's pixels, to the grey level, on all golden pictures."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from support.golden_files import golden_folder
from support.lvlm_dfd_folders import read_config
from support.lvlm_dfd_golden_runs import pictures_of

FOLDER = golden_folder("lvlm_dfd")
GOLDENS = load_file(FOLDER / "preprocess.safetensors")
SIZE = read_config(FOLDER)["imagebind"]["image_size"]
PICTURES = pictures_of(FOLDER)
MODES = {"squash_u8": "squash", "centercrop_u8": "center_crop"}


@pytest.mark.parametrize("name", sorted(name for name in GOLDENS if not re.fullmatch(r"image_\d+", name)))
def test_lvlm_dfd_pixels(name):
    processor = LvlmDfdImageProcessor(size={"height": SIZE, "width": SIZE})
    if match := re.fullmatch(r"squash_pixel_values_(\d+)", name):
        pixels = processor(PICTURES[int(match[1])], return_tensors="pt")["pixel_values"][0]
        assert pixels.dtype == torch.float32
        assert (pixels - GOLDENS[name]).abs().max() <= 1e-6
    else:
        assert name in MODES, "a golden tensor that this test does not reproduce"
        raw = processor(PICTURES, do_rescale=False, do_normalize=False, crop_mode=MODES[name], return_tensors="pt")[
            "pixel_values"
        ]
        assert torch.equal(raw, GOLDENS[name])


@pytest.mark.parametrize("index", range(len(PICTURES)))
def test_lvlm_dfd_golden_picture_is_read_as_stored(index):
    assert torch.equal(torch.from_numpy(np.array(PICTURES[index])), GOLDENS[f"image_{index}"])
