"""CLIP preprocessing with PIL, bit for bit as in the official code of FakeVLM and M2F2-Det, and a base for others."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, LlavaImageProcessor
from transformers.image_transforms import get_resize_output_image_size
from transformers.image_utils import SizeDict
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.processing_utils import ImagesKwargs, Unpack

from .heatmaps import map_to_picture

__all__ = [
    "ClipPictureProcessor",
    "ClipPictureProcessorKwargs",
    "FakeVLMImageProcessor",
    "FixedOrderResizeMixin",
    "M2F2DetImageProcessor",
    "as_bytes",
    "shortest_edge_size",
    "shrink_in_fixed_order",
]


def as_bytes(image: Any, rounded: bool = False) -> Any:
    """Convert floats in [0, 1] to uint8; return uint8 arrays and PIL images unchanged.

    Args:
        image: a PIL image, a numpy array or a torch tensor.
        rounded: round to the nearest level instead of truncating; both are exact for 8-bit images divided by 255.

    Raises:
        ValueError: for another dtype, or floats outside [0, 1] including NaN.
    """
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        return image
    array = np.asarray(image)
    if array.dtype == np.uint8:
        return array
    # The negated form also refuses NaN.
    if not np.issubdtype(array.dtype, np.floating) or not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            f"An image array of dtype {array.dtype} with values from {array.min()} to {array.max()} was given; "
            "accepted are uint8 in 0..255 and floats in 0..1."
        )
    levels = array * 255
    return (levels.round() if rounded else levels).astype(np.uint8)


def shortest_edge_size(image: Image.Image, edge: int) -> tuple[int, int]:
    """Return height and width of an image whose shortest edge becomes `edge`."""
    shaped = np.broadcast_to(np.uint8(0), (3, image.height, image.width))  # uses no memory: only the shape is read
    return get_resize_output_image_size(shaped, edge, default_to_square=False, input_data_format="channels_first")


def shrink_in_fixed_order(image: Image.Image, height: int, width: int, resample: Any) -> Image.Image:
    """Resize an image as described in `FixedOrderResizeMixin`."""
    rows, columns = image.height - height, image.width - width
    if rows > 0 and rows > 2 * columns:
        image = image.resize((image.width, height), resample)
    return image.resize((width, height), resample)


class FixedOrderResizeMixin:
    """Mixin for PIL-backend processors that makes every Pillow version return the same bytes.

    Pillow resizes one direction after the other and rounds in between. Up to version 12 it always started with the
    width; version 13 starts with the height if an image loses far more rows than columns. Some pixels of such an image
    differ by up to eleven grey levels. The order of version 13, used for the reference outputs, is kept here.
    """

    def resize(self, image: np.ndarray, size: SizeDict, resample: Any = None, **kwargs: Any) -> np.ndarray:
        """Resize like the base class.

        Args:
            image: (channels, height, width), uint8.
            size: `shortest_edge`, or `height` and `width`.
            resample: Pillow's filter.
        """
        if size.shortest_edge:
            height, width = get_resize_output_image_size(
                image, size.shortest_edge, default_to_square=False, input_data_format="channels_first"
            )
        else:
            height, width = size.height, size.width
        rows, columns = image.shape[-2] - height, image.shape[-1] - width
        if rows > 0 and rows > 2 * columns:
            image = self._resize_once(image, SizeDict(height=height, width=image.shape[-1]), resample, kwargs)
        return self._resize_once(image, SizeDict(height=height, width=width), resample, kwargs)

    def _resize_once(self, image: np.ndarray, size: SizeDict, resample: Any, options: dict[str, Any]) -> np.ndarray:
        return super().resize(image, size, resample, **options)  # type: ignore[misc]


class ClipPictureProcessorKwargs(ImagesKwargs, total=False):
    """
    fast: use the torchvision backend, which is faster, but about 0.3 % of the values differ by one or two grey levels.
    """

    fast: bool


class ClipPictureProcessor(FixedOrderResizeMixin, LlavaImageProcessorPil):
    """Convert images to `pixel_values` (batch, 3, height, width), float32, CLIP-normalised.

    Shortest edge to `size` (bicubic), centre crop to `crop_size`, 1/255, CLIP mean and deviation. `do_pad=True` first
    pads to a square with the mean colour (122, 116, 104), LLaVA's "pad" mode. Float arrays in [0, 1] are treated as
    8-bit images divided by 255 (the output of `ToTensor`) and converted back by truncation, as in the official code.
    """

    size = {"shortest_edge": 336}
    crop_size = {"height": 336, "width": 336}
    fast = False
    valid_kwargs = ClipPictureProcessorKwargs

    def __init__(self, **kwargs: Unpack[ClipPictureProcessorKwargs]) -> None:
        super().__init__(**kwargs)

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        image = as_bytes(image)
        if isinstance(image, Image.Image) and image.mode == "RGB":
            image = self._shrunk(image, kwargs)
        return super().process_image(image, *args, **kwargs)

    def _shrunk(self, image: Image.Image, settings: Mapping[str, Any]) -> Image.Image:
        """Resize the image to the size that `_preprocess` needs first, to avoid an array of the full image.

        Both use Pillow, so the pixels are the same; an image that already has this size is not resized again.
        """
        if not settings.get("do_resize") or settings.get("do_pad") or settings.get("fast"):
            return image
        size = settings["size"]
        if size.shortest_edge:
            height, width = shortest_edge_size(image, size.shortest_edge)
        else:
            height, width = size.height, size.width
        return shrink_in_fixed_order(image, height, width, settings.get("resample"))

    def heatmap_to_picture(self, values: torch.Tensor, picture_size: tuple[int, int]) -> Image.Image:
        """Project a heat map (rows, columns) in [0, 1] onto an image of `picture_size`; see `map_to_picture`."""
        resized, cropped = self.size["shortest_edge"], self.crop_size["height"]
        return map_to_picture(values, picture_size, resized, cropped, padded=bool(getattr(self, "do_pad", False)))

    def _preprocess(self, images: list[np.ndarray], *args: Any, fast: bool = False, **kwargs: Any) -> BatchFeature:
        if not fast:
            return super()._preprocess(images, *args, **kwargs)
        settings = {name: value for name, value in self.to_dict().items() if name in LlavaImageProcessor().to_dict()}
        settings["do_pad"] = kwargs["do_pad"]
        backend = self._tensor_backend(settings)
        tensors = [torch.from_numpy(np.ascontiguousarray(image)) for image in images]
        return backend(tensors, return_tensors=kwargs.get("return_tensors"))

    def _tensor_backend(self, settings: dict[str, Any]) -> LlavaImageProcessor:
        """The backend for `fast`; `settings` are those of this processor."""
        return LlavaImageProcessor(**settings)


class FakeVLMImageProcessor(ClipPictureProcessor):
    """Convert images to `pixel_values` (batch, 3, height, width), float32, CLIP-normalised.

    `do_pad=False` is used by the newer official code (shortest edge to `size`, bicubic, centre crop, which cuts the
    ends off long images), `do_pad=True` by the first one (padded to a square with the mean colour before that).
    """


class M2F2DetImageProcessorKwargs(ClipPictureProcessorKwargs, total=False):
    """
    face_crop: how faces are cropped before images reach this processor: the name of a recipe, or its fields.
    """

    face_crop: str | dict[str, Any]


class M2F2DetImageProcessor(ClipPictureProcessor):
    """Convert face crops to `pixel_values` (batch, 3, height, width), float32, CLIP-normalised.

    The CNN and CLIP share one tensor. With `do_pad=True`, LLaVA's mode for the language model, `pixel_values` is
    padded, and `detector_pixel_values` is the crop for the detector's CNN. `face_crop` is not applied here: it tells
    `examine`, training and evaluation on videos how to crop faces. The default is ours, because the official recipe is
    unpublished.
    """

    face_crop = "tight"
    valid_kwargs = M2F2DetImageProcessorKwargs

    def __init__(self, **kwargs: Unpack[M2F2DetImageProcessorKwargs]) -> None:
        super().__init__(**kwargs)  # type: ignore[misc]

    def _preprocess(
        self, images: list[np.ndarray], *args: Any, do_pad: bool | None, face_crop: Any = None, **kwargs: Any
    ) -> BatchFeature:
        data = super()._preprocess(images, *args, do_pad=do_pad, **kwargs)
        if do_pad:  # the detector's CNN never sees the padding
            crops = super()._preprocess(images, *args, do_pad=False, **kwargs)
            data["detector_pixel_values"] = crops["pixel_values"]
        return data
