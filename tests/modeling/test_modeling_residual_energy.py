import numpy as np
import pytest
import torch
from torch import nn
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from deepfake_detectors.modeling.modeling_residual_energy import NUM_PLANES, ResidualEnergyEncoder

SIZE, GRID = 32, 8


def make_encoder(**options):
    torch.manual_seed(0)
    return ResidualEnergyEncoder(**{"image_size": SIZE, "grid_size": GRID, "widths": (4, 6, 8), **options})


def normalise(levels):
    """uint8-valued (batch, 3, side, side) to what the CLIP image processor gives."""
    mean, std = torch.tensor(OPENAI_CLIP_MEAN)[:, None, None], torch.tensor(OPENAI_CLIP_STD)[:, None, None]
    return (levels.float() / 255 - mean) / std


@pytest.fixture
def pixels():
    return normalise(torch.randint(0, 256, (3, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1)))


def reference_planes(levels):
    """The front-end as data recipe B words it, in plain numpy loops over shifted pictures."""
    red, green, blue = levels.astype(np.float64)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = [y, blue - y, red - y]

    def halve(image):
        return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4

    def grid(image):
        cell = image.shape[0] // GRID
        return image.reshape(GRID, cell, GRID, cell).mean(axis=(1, 3))

    def residuals(image):
        p = np.pad(image, 1, mode="edge")

        def at(row, column):
            return p[1 + row : p.shape[0] - 1 + row, 1 + column : p.shape[1] - 1 + column]

        right, down = at(0, 1) - at(0, 0), at(1, 0) - at(0, 0)
        corners = at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1)
        edges = at(-1, 0) + at(1, 0) + at(0, -1) + at(0, 1)
        square = -corners + 2 * edges - 4 * at(0, 0)
        across = at(0, -1) - 2 * at(0, 0) + at(0, 1)
        along = at(-1, 0) - 2 * at(0, 0) + at(1, 0)
        diagonal = at(-1, -1) - at(-1, 1) - at(1, -1) + at(1, 1)
        return [right, down, square, across, along, diagonal]

    chosen = [
        *residuals(y),
        *residuals(halve(y))[:3],
        *residuals(halve(halve(y)))[:3],
        *residuals(halve(planes[1]))[:3],
        *residuals(halve(planes[2]))[:3],
    ]
    energies = [np.log(grid(np.abs(residual)) + 0.3) for residual in chosen]
    return np.stack([*energies, grid(y) / 64 - 2, grid(planes[1]) / 32, grid(planes[2]) / 32])


def test_front_end_equals_the_recipe():
    levels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE))
    planes = make_encoder().energy_planes(normalise(torch.from_numpy(levels)[None]))
    assert planes.shape == (1, NUM_PLANES, GRID, GRID)
    np.testing.assert_allclose(planes[0].numpy(), reference_planes(levels), atol=2e-4)


def test_output_shapes(pixels):
    encoder = make_encoder().eval()
    features = encoder(pixels)
    assert features.feature_map.shape == (3, 8, 2, 2)
    assert features.pooled.shape == (3, encoder.num_features) == (3, 24)
    assert features.mask_logits.shape == (3, encoder.mask_size, encoder.mask_size) == (3, 4, 4)


@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8, 10)])
def test_widths_decide_the_depth(pixels, widths):
    encoder = make_encoder(widths=widths, mask_head=False).eval()
    features = encoder(pixels)
    assert features.feature_map.shape[1] == widths[-1]
    assert features.mask_logits is None
    assert encoder.mask_size is None


def test_batch_of_one_equals_batch(pixels):
    encoder = make_encoder().eval()
    together = encoder(pixels)
    for index in range(len(pixels)):
        alone = encoder(pixels[index : index + 1])
        torch.testing.assert_close(alone.pooled[0], together.pooled[index], atol=1e-5, rtol=0)


def test_no_noise_in_eval_and_noise_in_training(pixels):
    encoder = make_encoder(dropout=0.0)
    assert not torch.equal(encoder(pixels).pooled, encoder(pixels).pooled)
    encoder.eval()
    assert torch.equal(encoder(pixels).pooled, encoder(pixels).pooled)


def test_noise_is_what_the_arguments_say(pixels):
    encoder = make_encoder(dropout=0.0, plane_noise=0.0, cell_noise=0.0, plane_dropout=0.0)
    assert torch.equal(encoder(pixels).pooled, encoder(pixels).pooled)


def test_standardization_centres_the_training_planes(pixels):
    encoder = make_encoder()
    encoder.fit_standardization([pixels[:2], pixels[2:]])
    planes = encoder.energy_planes(pixels)
    torch.testing.assert_close(encoder.plane_mean, planes.mean(dim=(0, 2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.plane_std, planes.std(dim=(0, 2, 3), correction=0), atol=1e-5, rtol=0)


def test_grey_pictures_do_not_divide_by_zero():
    grey = torch.randint(0, 256, (2, 1, SIZE, SIZE)).expand(-1, 3, -1, -1)
    encoder = make_encoder().eval()
    encoder.fit_standardization([normalise(grey)])
    assert torch.isfinite(encoder(normalise(grey)).pooled).all()


def test_standardization_of_nothing():
    with pytest.raises(ValueError, match="fit_standardization"):
        make_encoder().fit_standardization([])


def test_everything_fixed_is_in_the_state_dict(pixels):
    """Models are built on the meta device and filled from a file: what is not in it comes back as garbage."""
    encoder = make_encoder().eval()
    encoder.fit_standardization([pixels])
    with torch.device("meta"):
        empty = make_encoder()
    empty = empty.to_empty(device="cpu")
    empty.load_state_dict(encoder.state_dict())
    assert torch.equal(empty.eval()(pixels).pooled, encoder(pixels).pooled)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_pictures_keep_their_residuals(dtype):
    levels = torch.randint(100, 110, (2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    encoder = make_encoder()
    exact, rounded = encoder.energy_planes(normalise(levels)), encoder.energy_planes(normalise(levels).to(dtype))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=1e-3, rtol=0)


def test_bfloat16_weights(pixels):
    encoder = make_encoder().eval()
    encoder.fit_standardization([pixels])
    expected = encoder(pixels)
    features = encoder.to(torch.bfloat16)(pixels)
    assert features.pooled.dtype == torch.bfloat16
    torch.testing.assert_close(features.pooled.float(), expected.pooled, atol=0.1, rtol=0.05)


def test_autocast_leaves_the_front_end_alone(pixels):
    encoder = make_encoder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        planes = encoder.energy_planes(pixels)
    assert torch.equal(planes, encoder.energy_planes(pixels))


def test_every_parameter_is_trained(pixels):
    encoder = make_encoder(dropout=0.0)
    features = encoder(pixels)
    (features.pooled.square().sum() + features.mask_logits.square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_size_at_the_default():
    encoder = ResidualEnergyEncoder()
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    assert 200_000 < parameters < 300_000
    assert isinstance(encoder.mask_head, nn.Conv2d)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 30}, r"image_size is 30 and grid_size 8.*\(= 32\)"),
        ({"grid_size": 0}, "grid_size 0"),
        ({"widths": ()}, "widths is"),
        ({"widths": (4, 0)}, "widths is"),
        ({"widths": (4,)}, "mask_head=True"),
        ({"image_mean": (0.5,)}, "image_mean is"),
        ({"image_std": (1.0, 0.0, 1.0)}, "image_std is"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"plane_noise": -1.0}, "plane_noise is -1.0"),
        ({"log_offset": 0.0}, "log_offset is 0.0"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(**options)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 1, SIZE, SIZE), (3, SIZE, SIZE)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="Use the checkpoint's own image processor"):
        make_encoder()(torch.zeros(shape))
