"""AntifakePrompt preprocessing: bicubic resize, half-even centre crop, and statistics of each checkpoint."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import LlavaImageProcessor

from .image_loading import rgb_image
from .image_processing_clip import ClipPictureProcessor, ClipPictureProcessorKwargs

__all__ = ["IMAGE_STATISTICS", "AntifakePromptImageProcessor", "AntifakePromptImageProcessorKwargs"]

# mean, deviation: from the model settings of each released checkpoint. `lama`: also trained with LaMa images;
# `real_60k`, `real_120k`: the ablations of the number of real images.
IMAGE_STATISTICS = {
    "coco_sd2_sd2ip": ([0.4730, 0.4499, 0.4129], [0.2780, 0.2713, 0.2872]),
    "lama": ([0.4722, 0.4490, 0.4117], [0.2772, 0.2708, 0.2867]),
    "real_60k": ([0.4739, 0.4508, 0.4143], [0.2778, 0.2706, 0.2868]),
    "real_120k": ([0.4723, 0.4492, 0.4119], [0.2781, 0.2717, 0.2874]),
}
CROP_ROUNDINGS = ("half_even", "floor")


class AntifakePromptImageProcessorKwargs(ClipPictureProcessorKwargs, total=False):
    """
    crop_rounding: how to round the crop offset if the margin is odd: `"half_even"` as torchvision and the official
    code, or `"floor"` as transformers (one pixel off if the margin is 3 modulo 4).
    """

    crop_rounding: str


class AntifakePromptImageProcessor(ClipPictureProcessor):
    """Convert images to `pixel_values` (batch, 3, height, width), float32.

    Shortest edge to `size` (bicubic), centre crop to `crop_size`, 1/255, mean and deviation of the checkpoint (see
    `IMAGE_STATISTICS`; by default those of COCO + SD2 + SD2-inpainting). Exact with PIL; `fast=True` uses torchvision
    tensors, which differ by up to two grey levels. Float arrays in [0, 1] are treated as 8-bit images divided by 255.
    """

    size = {"shortest_edge": 224}
    crop_size = {"height": 224, "width": 224}
    image_mean = IMAGE_STATISTICS["coco_sd2_sd2ip"][0]
    image_std = IMAGE_STATISTICS["coco_sd2_sd2ip"][1]
    crop_rounding = "half_even"
    valid_kwargs = AntifakePromptImageProcessorKwargs

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.crop_rounding not in CROP_ROUNDINGS:
            raise ValueError(
                f"crop_rounding is {self.crop_rounding!r}, allowed are {', '.join(map(repr, CROP_ROUNDINGS))}."
            )

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        # As in the official code, transparency is dropped; transformers would blend it with white.
        return super().process_image(rgb_image(image) if isinstance(image, Image.Image) else image, *args, **kwargs)

    def center_crop(self, image: np.ndarray, size: Any, **kwargs: Any) -> np.ndarray:
        return _center_crop(image, size, self.crop_rounding)

    def _tensor_backend(self, settings: dict[str, Any]) -> LlavaImageProcessor:
        backend = _TensorBackend(**settings)
        backend.crop_rounding = self.crop_rounding
        return backend


class _TensorBackend(LlavaImageProcessor):
    crop_rounding = "half_even"

    def center_crop(self, image: torch.Tensor, size: Any, **kwargs: Any) -> torch.Tensor:
        return _center_crop(image, size, self.crop_rounding)


def _center_crop(image: Any, size: Any, rounding: str) -> Any:
    """Crop (..., height, width), which must be at least as large as `size`."""
    margins = image.shape[-2] - size.height, image.shape[-1] - size.width
    if min(margins) < 0:
        raise ValueError(
            f"crop_size {size.height}x{size.width} is larger than the resized image "
            f"{image.shape[-2]}x{image.shape[-1]}; crop_size must not exceed size."
        )
    # Python rounds halves to the even neighbour.
    top, left = (round(margin / 2) if rounding == "half_even" else margin // 2 for margin in margins)
    return image[..., top : top + size.height, left : left + size.width]
