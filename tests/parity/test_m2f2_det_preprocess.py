"""Parity of M2F2-Det's picture preprocessing, detector ("crop") and language model ("pad") path."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from support.golden_files import golden_folder

FOLDER = golden_folder("m2f2_det") / "preprocess"
META = json.loads((FOLDER / "meta.json").read_text())
SIZE = json.loads((FOLDER / "clip336_processor" / "preprocessor_config.json").read_text())["crop_size"]
CASES = [(mode, picture) for mode in ("crop", "pad") for picture in META["images"]]
IDS = [f"{mode}_{picture['index']}" for mode, picture in CASES]


def processor(mode, **options):
    return M2F2DetImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, do_pad=mode == "pad", **options
    )


def picture_of(entry):
    return Image.open(FOLDER / f"in_{entry['index']}_{entry['width']}x{entry['height']}.png")


@pytest.mark.parametrize(("mode", "entry"), CASES, ids=IDS)
def test_m2f2_det_uint8_pictures_are_equal(mode, entry):
    raw = processor(mode, do_rescale=False, do_normalize=False)(picture_of(entry), return_tensors="np")
    expected = np.asarray(Image.open(FOLDER / f"{mode}_{entry['index']}.png").convert("RGB"))
    assert np.array_equal(raw["pixel_values"][0].transpose(1, 2, 0).astype(np.uint8), expected)


@pytest.mark.parametrize(("mode", "entry"), CASES, ids=IDS)
def test_m2f2_det_normalised_values(mode, entry):
    golden = load_file(FOLDER / "pixels.safetensors")
    pixels = processor(mode)(picture_of(entry), return_tensors="pt")["pixel_values"][0]
    name = f"{mode}_{entry['index']}"
    assert torch.allclose(pixels[:, ::8, ::8], golden[f"{name}_pixel_values_every8"], rtol=0, atol=1e-6)
    assert torch.allclose(torch.stack([pixels.mean(), pixels.std()]), golden[f"{name}_mean_std"], atol=1e-4)


@pytest.mark.parametrize(("mode", "entry"), CASES, ids=IDS)
def test_m2f2_det_fast_backend_differs_by_two_levels_at_most(mode, entry):
    """The torchvision backend: up to 2 grey levels, on few values (goldens' README: about 0.3 %)."""
    options = {"do_rescale": False, "do_normalize": False}
    exact, fast = (
        processor(mode, fast=fast, **options)(picture_of(entry), return_tensors="pt")["pixel_values"].float()
        for fast in (False, True)
    )
    difference = (exact - fast).abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() <= 0.02
