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
    "pad_and_shrink",
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


def pad_and_shrink(
    image: Image.Image, height: int, width: int, resample: Any, background: tuple[int, ...]
) -> Image.Image:
    """Return a picture in the middle of a square of one colour, resized.

    Args:
        image: of mode `RGB`.
        height, width: of the result.
        resample: Pillow's filter.
        background: red, green and blue, 0-255.
    """
    side = max(image.size)
    if image.width > image.height:
        # Pillow resizes the width first, which leaves rows of one colour as they are: only the picture's own are done.
        rows = image.resize((width, image.height), resample)
        square = Image.new("RGB", (width, side), background)
        square.paste(rows, (0, (side - image.height) // 2))
        return square.resize((width, height), resample)
    square = Image.new("RGB", (side, side), background)
    square.paste(image, ((side - image.width) // 2, 0))
    return square.resize((width, height), resample)


class FixedOrderResizeMixin:
    """Put before a processor of the PIL backend: the same bytes from every Pillow, and no array of a whole picture.

    Pillow resizes one direction after the other and rounds in between. Up to version 12 it always started with the
    width; version 13 starts with the height if an image loses far more rows than columns. Some pixels of such an image
    differ by up to eleven grey levels. The order of version 13, used for the reference outputs, is kept here.
    """

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        # What is laid over white has to be so in its full size.
        if isinstance(image, Image.Image) and image.mode == "RGB" and "transparency" not in image.info:
            image = self._shrunk(image, kwargs)
        return super().process_image(image, *args, **kwargs)  # type: ignore[misc]

    def _shrunk(self, image: Image.Image, settings: Mapping[str, Any]) -> Image.Image:
        """The picture in the size that `_preprocess` would bring it to first, so that no array of the whole is made.

        Pillow does both, so the pixels are the same; what has its size already is not resized again.
        """
        if not settings.get("do_resize"):
            return image
        size = self._first_size(settings)
        if size.shortest_edge:
            height, width = shortest_edge_size(image, size.shortest_edge)
        else:
            height, width = size.height, size.width
        return shrink_in_fixed_order(image, height, width, settings.get("resample"))

    def _first_size(self, settings: Mapping[str, Any]) -> SizeDict:
        return settings["size"]

    def resized_side(self, head: str | None = None) -> int | None:
        """Return the short side in pixels to which pictures are brought first, `None` where they are not resized.

        Args:
            head: of a checkpoint with named heads, the one that judges.
        """
        size = self.size
        return (size.shortest_edge or min(size.height, size.width)) if self.do_resize else None

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
        return super().process_image(as_bytes(image), *args, **kwargs)

    def _shrunk(self, image: Image.Image, settings: Mapping[str, Any]) -> Image.Image:
        if settings.get("fast"):
            return image
        if not settings.get("do_pad"):
            return super()._shrunk(image, settings)
        size, mean = settings["size"], settings.get("image_mean")
        height, width = [size.shortest_edge] * 2 if size.shortest_edge else (size.height, size.width)
        if not settings.get("do_resize") or not mean or height != width:
            return image
        background = tuple(int(value * 255) for value in mean)
        return pad_and_shrink(image, height, width, settings.get("resample"), background)

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

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        data = super().preprocess(images, *args, **kwargs)
        do_pad = kwargs.get("do_pad")
        if self.do_pad if do_pad is None else do_pad:  # the detector's CNN never sees the padding
            crops = super().preprocess(images, *args, **{**kwargs, "do_pad": False})
            data["detector_pixel_values"] = crops["pixel_values"]
        return data

    def _preprocess(self, images: list[np.ndarray], *args: Any, face_crop: Any = None, **kwargs: Any) -> BatchFeature:
        return super()._preprocess(images, *args, **kwargs)
