"""A small CNN branch whose inputs are log energies of fixed high-pass residuals instead of pixels.

It learns from little data, because the first layer, the magnitude and the local averaging that image forensics needs
are fixed and not learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

__all__ = ["EncoderFeatures", "ResidualEnergyEncoder"]

# Second-order residuals in the sense of Fridrich & Kodovsky, "Rich Models for Steganalysis" (2012), plus first
# differences and one diagonal kernel.
RESIDUAL_FILTERS = (
    ((0, 0, 0), (0, -1, 1), (0, 0, 0)),  # difference to the right
    ((0, 0, 0), (0, -1, 0), (0, 1, 0)),  # difference downwards
    ((-1, 2, -1), (2, -4, 2), (-1, 2, -1)),  # square kernel
    ((0, 0, 0), (1, -2, 1), (0, 0, 0)),  # second difference, horizontal
    ((0, 1, 0), (0, -2, 0), (0, 1, 0)),  # second difference, vertical
    ((1, 0, -1), (0, 0, 0), (-1, 0, 1)),  # diagonal
)
NUM_COARSE_FILTERS = 3  # the first three are enough for chroma and for the coarser scales

# (colour plane, halvings of the resolution, number of filters); colour planes are 0 = Y, 1 = U, 2 = V.
ENERGY_PLANES = (
    (0, 0, len(RESIDUAL_FILTERS)),
    (0, 1, NUM_COARSE_FILTERS),
    (0, 2, NUM_COARSE_FILTERS),
    (1, 1, NUM_COARSE_FILTERS),
    (2, 1, NUM_COARSE_FILTERS),
)
NUM_COLOUR_PLANES = 3
NUM_PLANES = sum(count for _, _, count in ENERGY_PLANES) + NUM_COLOUR_PLANES
MAX_HALVINGS = max(halvings for _, halvings, _ in ENERGY_PLANES)
LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, the Y of JPEG


class EncoderFeatures(NamedTuple):
    """Output of a CNN branch.

    Attributes:
        feature_map: last feature map, `(batch, channels, height, width)`.
        pooled: one vector per image, `(batch, num_features)`.
        mask_logits: logits that a cell was manipulated, `(batch, mask_height, mask_width)`, or `None` if the branch
            does not localise.
    """

    feature_map: torch.Tensor
    pooled: torch.Tensor
    mask_logits: torch.Tensor | None = None


class ResidualEnergyEncoder(nn.Module):
    """CNN branch on log residual energies: 21 fixed planes, then a residual network of one stage per width.

    Args:
        image_size: side of the square input, in pixels. The encoder needs native resolution: resizing destroys the
            residuals it measures.
        widths: channels of the stages. The first stage works at `grid_size`; each further one halves the resolution.
        image_mean: per-channel mean that the image processor subtracted, for pixels in [0, 1].
        image_std: per-channel deviation that the image processor divided by, for pixels in [0, 1].
        grid_size: side of the planes, in cells; each cell is the average of a square of `image_size / grid_size`
            pixels.
        mask_head: whether to predict a manipulation mask from the second stage.
        position_map: whether to add a learned map, so that the same energy can have a different meaning for an eye
            than for a cheek.
        dropout: probability of zeroing a pooled feature, in training mode.
        plane_noise: deviation of Gaussian noise that is constant over a plane, in training mode.
        cell_noise: deviation of Gaussian noise per cell, in training mode.
        plane_dropout: probability of zeroing a whole plane, in training mode.
        log_offset: grey levels added before the logarithm; about the noise floor of an 8-bit image.

    Attributes:
        num_features: width of `pooled`: mean, maximum and mean of the central cells of the last map.
        mask_size: side of `mask_logits`, or `None` without a mask head.

    Raises:
        ValueError: for an argument outside its range; the message names it.
    """

    def __init__(
        self,
        image_size: int = 224,
        widths: Sequence[int] = (32, 64, 96),
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
        grid_size: int = 28,
        mask_head: bool = True,
        position_map: bool = True,
        dropout: float = 0.4,
        plane_noise: float = 0.1,
        cell_noise: float = 0.05,
        plane_dropout: float = 0.1,
        log_offset: float = 0.3,
    ) -> None:
        super().__init__()
        _check_arguments(image_size, grid_size, widths, image_mean, image_std, mask_head, log_offset)
        for name, value in (("dropout", dropout), ("plane_dropout", plane_dropout)):
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{name} is {value}, expected a probability in [0, 1).")
        for name, value in (("plane_noise", plane_noise), ("cell_noise", cell_noise)):
            if value < 0.0:
                raise ValueError(f"{name} is {value}, expected a deviation of 0 or more.")
        self.image_size, self.grid_size = image_size, grid_size
        self.image_mean, self.image_std = tuple(map(float, image_mean)), tuple(map(float, image_std))
        self.plane_noise, self.cell_noise, self.plane_dropout = plane_noise, cell_noise, plane_dropout
        self.log_offset = log_offset
        self.num_features = 3 * widths[-1]
        self.mask_size = -(-grid_size // 2) if mask_head else None

        # Persistent, because models are created on the meta device and then filled from their file.
        self.register_buffer("filters", torch.tensor(RESIDUAL_FILTERS, dtype=torch.float32).unsqueeze(1))
        self.register_buffer("plane_mean", torch.zeros(NUM_PLANES))
        self.register_buffer("plane_std", torch.ones(NUM_PLANES))

        self.stem = nn.Conv2d(NUM_PLANES, widths[0], kernel_size=1)
        self.position = nn.Parameter(torch.zeros(1, widths[0], grid_size, grid_size)) if position_map else None
        inputs = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(
            ResidualBlock(before, width, stride=1 if index == 0 else 2)
            for index, (before, width) in enumerate(zip(inputs, widths, strict=True))
        )
        self.mask_head = nn.Conv2d(widths[1], 1, kernel_size=1) if mask_head else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, pixel_values: torch.Tensor) -> EncoderFeatures:
        """Encode normalised images.

        Args:
            pixel_values: `(batch, 3, image_size, image_size)`, normalised with `image_mean` and `image_std`. Pass
                float32 even to a half-precision model if possible.

        Returns:
            `EncoderFeatures` in the dtype of the weights; `feature_map` is `(batch, widths[-1], h, w)`.

        Raises:
            ValueError: if the images have the wrong size.
        """
        planes = (self.energy_planes(pixel_values) - self.plane_mean.float()[:, None, None]) / self.plane_std.float()[
            :, None, None
        ]
        if self.training:
            planes = self._perturb(planes)
        hidden = self.stem(planes.to(self.stem.weight.dtype))
        if self.position is not None:
            hidden = hidden + self.position
        mask_logits = None
        for index, stage in enumerate(self.stages):
            hidden = stage(hidden)
            if index == 1 and self.mask_head is not None:
                mask_logits = self.mask_head(hidden).squeeze(1)
        pooled = torch.cat([hidden.mean(dim=(2, 3)), hidden.amax(dim=(2, 3)), _central_mean(hidden)], dim=1)
        return EncoderFeatures(hidden, self.dropout(pooled), mask_logits)

    def energy_planes(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Compute the fixed front end: log mean absolute residuals and mean colours, before standardisation.

        Args:
            pixel_values: as in `forward`.

        Returns:
            float32 `(batch, 21, grid_size, grid_size)`: 18 natural logarithms of grey levels, then Y / 64 - 2, U / 32
            and V / 32.
        """
        expected = (3, self.image_size, self.image_size)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, but this encoder was built for (batch, "
                f"{', '.join(map(str, expected))}). Use the checkpoint's own image processor."
            )
        # Autocast would run the convolutions in half precision, whose rounding is larger than the residuals.
        with torch.autocast(device_type=pixel_values.device.type, enabled=False):
            colours = self._colour_planes(pixel_values)
            pyramid = [colours]
            for _ in range(MAX_HALVINGS):
                pyramid.append(F.avg_pool2d(pyramid[-1], kernel_size=2))
            filters = self.filters.float()
            energies = []
            for plane, halvings, count in ENERGY_PLANES:
                source = F.pad(pyramid[halvings][:, plane : plane + 1], (1, 1, 1, 1), mode="replicate")
                energies.append(self._to_grid(F.conv2d(source, filters[:count]).abs()))
            mean_colours = self._to_grid(colours)
            luma, chroma = mean_colours[:, :1] / 64 - 2, mean_colours[:, 1:] / 32
            return torch.cat([torch.log(torch.cat(energies, dim=1) + self.log_offset), luma, chroma], dim=1)

    @torch.no_grad()
    def fit_standardization(self, batches: Iterable[torch.Tensor]) -> None:
        """Set the mean and deviation of each plane from training images.

        Args:
            batches: tensors as for `forward`.

        Raises:
            ValueError: without any image.
        """
        count, total, squares = 0, torch.zeros(NUM_PLANES, dtype=torch.float64), None
        for batch in batches:
            planes = self.energy_planes(batch.to(self.plane_mean.device)).double().cpu()
            count += planes.shape[0] * self.grid_size**2
            total = total + planes.sum(dim=(0, 2, 3))
            batch_squares = planes.square().sum(dim=(0, 2, 3))
            squares = batch_squares if squares is None else squares + batch_squares
        if squares is None:
            raise ValueError("fit_standardization got no images; pass the training split.")
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        self.plane_mean.copy_(mean)
        # A constant plane (grey images have no chroma) has no information; 1 keeps it at zero.
        self.plane_std.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def _colour_planes(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return Y, B - Y and R - Y in grey levels (0..255), float32."""
        levels = pixel_values.float()
        red, green, blue = (
            255.0 * (levels[:, channel] * self.image_std[channel] + self.image_mean[channel]) for channel in range(3)
        )
        if pixel_values.dtype in (torch.bfloat16, torch.float16):
            # Half-precision pixels are off by up to half a grey level, as much as the residuals themselves. Images
            # have integer grey levels, so rounding restores them.
            red, green, blue = red.round(), green.round(), blue.round()
        luma = LUMA_WEIGHTS[0] * red + LUMA_WEIGHTS[1] * green + LUMA_WEIGHTS[2] * blue
        return torch.stack([luma, blue - luma, red - luma], dim=1)

    def _to_grid(self, planes: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(planes, kernel_size=planes.shape[-1] // self.grid_size)

    def _perturb(self, planes: torch.Tensor) -> torch.Tensor:
        per_plane = planes.new_empty(*planes.shape[:2], 1, 1)
        planes = planes + self.plane_noise * torch.randn_like(per_plane) + self.cell_noise * torch.randn_like(planes)
        return planes * (torch.rand_like(per_plane) >= self.plane_dropout)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and SiLU, and a shortcut.

    Takes `(batch, inputs, h, w)`, returns `(batch, width, h / stride, w / stride)`, rounded up.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, width, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = F.silu(self.norm1(self.conv1(hidden)))
        return F.silu(self.norm2(self.conv2(inner)) + self.shortcut(hidden))


def _central_mean(hidden: torch.Tensor) -> torch.Tensor:
    """Return the mean of the central 3x3 cells (or fewer): face crops have the face in the middle."""
    height, width = hidden.shape[-2:]
    top, left = max(height // 2 - 1, 0), max(width // 2 - 1, 0)
    return hidden[..., top : top + 3, left : left + 3].mean(dim=(2, 3))


def _check_arguments(
    image_size: int,
    grid_size: int,
    widths: Sequence[int],
    image_mean: Sequence[float],
    image_std: Sequence[float],
    mask_head: bool,
    log_offset: float,
) -> None:
    step = grid_size * 2**MAX_HALVINGS
    if grid_size < 1 or image_size < 1 or image_size % step:
        raise ValueError(
            f"image_size is {image_size} and grid_size {grid_size}, but image_size must be a multiple of "
            f"{2**MAX_HALVINGS} x grid_size (= {step}), because the coarsest scale is 1/{2**MAX_HALVINGS}."
        )
    if not widths or any(width < 1 for width in widths):
        raise ValueError(f"widths is {list(widths)}, expected one positive number of channels per stage.")
    if mask_head and len(widths) < 2:
        raise ValueError(f"mask_head=True needs a second stage, but widths is {list(widths)}; pass two or more.")
    for name, values in (("image_mean", image_mean), ("image_std", image_std)):
        if len(values) != 3:
            raise ValueError(f"{name} is {list(values)}, expected three numbers (red, green, blue).")
    if any(value <= 0 for value in image_std):
        raise ValueError(f"image_std is {list(image_std)}, expected positive numbers.")
    if log_offset <= 0:
        raise ValueError(f"log_offset is {log_offset}, expected a positive number of grey levels.")
