"""LVLM-DFD preprocessing with PIL, bit for bit as in the official code, and resizing of masks to the image's size."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_transforms import get_resize_output_image_size
from transformers.image_utils import SizeDict
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.processing_utils import ImagesKwargs, Unpack

from .image_processing_clip import FixedOrderResizeMixin, as_bytes

__all__ = ["LvlmDfdImageProcessor", "LvlmDfdImageProcessorKwargs"]

CROP_MODES = ("squash", "center_crop")


class LvlmDfdImageProcessorKwargs(ImagesKwargs, total=False):
    """
    crop_mode: `"squash"` or `"center_crop"`.
    face_crop: how faces are cropped before images reach this processor: the name of a recipe, or its fields.
    """

    crop_mode: str
    face_crop: str | dict[str, Any]


class LvlmDfdImageProcessor(FixedOrderResizeMixin, CLIPImageProcessorPil):
    """Convert images to `pixel_values` (batch, 3, height, width), float32, CLIP-normalised.

    `crop_mode="squash"` resizes directly to `size`, ignoring the aspect ratio, as the official code always does;
    `"center_crop"` resizes the shorter side and crops the centre, with offsets rounded half to even. Bicubic, on
    bytes. Float arrays in [0, 1] are treated as 8-bit images divided by 255. `face_crop` is not applied here: it tells
    `examine`, training and evaluation on videos how to crop faces. The default is ours, because the official recipe is
    unpublished.
    """

    size = {"height": 224, "width": 224}
    default_to_square = True
    do_center_crop = False
    crop_size = None
    crop_mode = "squash"
    face_crop = "wide"
    valid_kwargs = LvlmDfdImageProcessorKwargs

    def __init__(self, **kwargs: Unpack[LvlmDfdImageProcessorKwargs]) -> None:
        super().__init__(**kwargs)
        _check_mode(self.crop_mode)
        if self.size.height is None or self.size.height != self.size.width:
            raise ValueError(f"size is {self.size}, expected equal height and width, the model's image_size.")

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        return super().process_image(as_bytes(image, rounded=True), *args, **kwargs)

    def _first_size(self, settings: Mapping[str, Any]) -> SizeDict:
        _check_mode(settings["crop_mode"])
        size = settings["size"]
        return size if settings["crop_mode"] == "squash" else SizeDict(shortest_edge=size.height)

    def _preprocess(
        self,
        images: list[np.ndarray],
        size: SizeDict,
        crop_mode: str = "squash",
        do_center_crop: bool = False,
        crop_size: SizeDict | None = None,
        face_crop: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        _check_mode(crop_mode)
        if crop_mode == "squash":
            return super()._preprocess(images, size=size, do_center_crop=False, crop_size=size, **kwargs)
        edge = SizeDict(shortest_edge=size.height)
        return super()._preprocess(images, size=edge, do_center_crop=True, crop_size=size, **kwargs)

    def center_crop(self, image: np.ndarray, size: SizeDict, **kwargs: Any) -> np.ndarray:
        top, left = _offsets(image.shape[-2:], size.height)
        return image[..., top : top + size.height, left : left + size.width]

    def mask_to_picture(self, mask: torch.Tensor, picture_size: tuple[int, int]) -> Image.Image:
        """Project a mask of the model back onto the whole image.

        Args:
            mask: (height, width), manipulated share in [0, 1].
            picture_size: width and height of the original image, in pixels.

        Returns:
            Mode `L`, 0-255, of size `picture_size`; zero outside the area that the model saw.
        """
        grey = Image.fromarray((mask.float().cpu().numpy() * 255).round().astype(np.uint8))
        if self.crop_mode == "squash":
            return grey.resize(picture_size, Image.Resampling.BILINEAR)
        width, height = picture_size
        resized = get_resize_output_image_size(
            np.empty((0, height, width)), self.size.height, default_to_square=False, input_data_format="channels_first"
        )
        top, left = _offsets(resized, self.size.height)
        vertical, horizontal = height / resized[0], width / resized[1]
        box = (
            round(left * horizontal),
            round(top * vertical),
            round((left + self.size.width) * horizontal),
            round((top + self.size.height) * vertical),
        )
        whole = Image.new("L", picture_size)
        whole.paste(grey.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR), box[:2])
        return whole


def _offsets(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """Return top and left of the centre crop; Python rounds half to even, as the official crop does."""
    return round((size[0] - edge) / 2), round((size[1] - edge) / 2)


def _check_mode(mode: str) -> None:
    if mode not in CROP_MODES:
        raise ValueError(f"crop_mode is {mode!r}, allowed are {', '.join(map(repr, CROP_MODES))}.")
