"""Preprocessing of CLIP probes: the same recent history for every picture, and what each head gets."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from deepfake_detectors.modeling.image_processing_clip_probe import ClipProbeImageProcessor, same_history
from support.tiny_clip_probe import clip_probe_processor, tiny_clip_probe

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def photograph(width: int, height: int) -> Image.Image:
    """Smooth colours and some noise, so that compression and resizing are felt."""
    draw = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 5, height))
    planes = [np.sin(x + shift) * np.cos(y - shift) * 90 + 128 for shift in (0.0, 0.7, 1.9)]
    noisy = np.stack(planes, axis=-1) + draw.normal(0, 12, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return Image.open(file).convert("RGB")


def normalised(picture: Image.Image) -> torch.Tensor:
    values = (np.asarray(picture, dtype=np.float64) / 255 - MEAN) / DEVIATION
    return torch.from_numpy(values.transpose(2, 0, 1)).float()[None]


@pytest.fixture
def processor():
    heads = {
        "picture": {"shrink_to": 336, "jpeg_quality": 85},
        "face": {},
        "published": {"do_resize": False},
    }
    return ClipProbeImageProcessor(heads=heads)


def test_the_recipe_step_by_step(processor):
    picture = photograph(640, 480)
    small = compressed(picture.resize((448, 336), Image.Resampling.BICUBIC), 85)
    whole = small.resize((298, 224), Image.Resampling.BICUBIC)
    expected = normalised(whole.crop((37, 0, 261, 224)))
    assert torch.allclose(processor(picture, return_tensors="pt").pixel_values, expected, atol=1e-6)


def test_small_pictures_are_compressed_but_never_enlarged_first(processor):
    picture = photograph(300, 300)
    expected = normalised(compressed(picture, 85).resize((224, 224), Image.Resampling.BICUBIC))
    assert torch.allclose(processor(picture, return_tensors="pt").pixel_values, expected, atol=1e-6)


def test_faces_keep_their_own_history(processor):
    picture = photograph(224, 224)
    found = processor(picture, head="face", return_tensors="pt").pixel_values
    assert torch.allclose(found, normalised(picture), atol=1e-6)


def test_middle_cut_out_of_the_own_pixels_with_zeros_around(processor):
    picture = photograph(400, 200)
    found = processor(picture, head="published", return_tensors="pt").pixel_values
    inside = normalised(picture.crop((88, 0, 312, 200)))
    assert found.shape == (1, 3, 224, 224)
    assert torch.allclose(found[:, :, 12:212], inside, atol=1e-6)
    black = torch.tensor([-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)])
    assert torch.allclose(found[0, :, 0, 0], black, atol=1e-6)


def test_training_can_shrink_further(processor):
    picture = photograph(512, 512)
    small = compressed(picture.resize((256, 256), Image.Resampling.BICUBIC), 85)
    expected = normalised(small.resize((224, 224), Image.Resampling.BICUBIC))
    found = processor(picture, head="picture", shrink_to=256, return_tensors="pt")
    assert torch.allclose(found.pixel_values, expected, atol=1e-6)
    assert found["head"] == "picture"


def test_arrays_in_unit_range_are_the_same_picture(processor):
    picture = photograph(350, 340)
    whole = processor(picture, return_tensors="pt").pixel_values
    array = np.asarray(picture, dtype=np.float64) / 255
    assert torch.equal(processor(array, do_rescale=True, return_tensors="pt").pixel_values, whole)


def test_history_leaves_the_given_array_alone():
    array = np.asarray(photograph(60, 50)).transpose(2, 0, 1)
    before = array.copy()
    assert same_history(array, None, None) is array
    assert same_history(array, 30, 85).shape == (3, 30, 36)
    assert np.array_equal(array, before)


def test_saved_processor_does_the_same(tmp_path):
    picture = photograph(200, 160)
    loaded = AutoProcessor.from_pretrained(tiny_clip_probe(tmp_path))
    for head in (None, "picture", "face"):
        expected = clip_probe_processor()(images=picture, head=head, return_tensors="pt")
        found = loaded(images=picture, head=head, return_tensors="pt")
        assert torch.equal(found["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize(
    ("heads", "named"),
    [
        ({"face": {"blur": 2}}, "blur"),
        ({"face": {"jpeg_quality": 100}}, "100"),
        ({"face": {"shrink_to": 0}}, "shrink_to"),
        ({"face": {"shrink_to": True}}, "True"),
        ({"face": {"do_resize": "no"}}, "no"),
    ],
)
def test_settings_that_cannot_be(heads, named):
    with pytest.raises(ValueError, match=named):
        ClipProbeImageProcessor(heads=heads)


def test_default_head_must_be_there():
    with pytest.raises(ValueError, match="nose"):
        ClipProbeImageProcessor(heads={"face": {}}, default_head="nose")
