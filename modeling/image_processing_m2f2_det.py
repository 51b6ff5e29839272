"""M2F2-Det preprocessing: CLIP's resize, crop and normalisation, bit for bit as the official code on PIL."""

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, LlavaImageProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.processing_utils import ImagesKwargs, Unpack

from .picture_arrays import as_bytes

__all__ = ["M2F2DetImageProcessor", "M2F2DetImageProcessorKwargs"]


class M2F2DetImageProcessorKwargs(ImagesKwargs, total=False):
    """
    fast: use the torchvision backend. Quicker, but about 0.3 % of the values differ by one or two grey levels.
    """

    fast: bool


class M2F2DetImageProcessor(LlavaImageProcessorPil):
    """Pictures to `pixel_values` (batch, 3, height, width), float32, CLIP-normalised.

    Shortest edge to `size` (bicubic), centre crop to `crop_size`, 1/255, CLIP mean and deviation; CNN and CLIP read
    the same tensor. `do_pad=True` first pads to a square with the mean colour (122, 116, 104), as LLaVA's "pad" mode
    does for the language model; the crop, which the detector's CNN wants, is then `detector_pixel_values`. Float
    arrays in [0, 1] are taken as 8-bit pictures divided by 255 (what `ToTensor` gives) and turned back, by truncation
    as in the official code.
    """

    size = {"shortest_edge": 336}
    crop_size = {"height": 336, "width": 336}
    fast = False
    valid_kwargs = M2F2DetImageProcessorKwargs

    def __init__(self, **kwargs: Unpack[M2F2DetImageProcessorKwargs]) -> None:
        super().__init__(**kwargs)

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        return super().process_image(as_bytes(image), *args, **kwargs)

    def _preprocess(self, images: list[np.ndarray], *args: Any, do_pad: bool | None, **kwargs: Any) -> BatchFeature:
        data = self._one_view(images, *args, do_pad=do_pad, **kwargs)
        if do_pad:  # the detector's CNN never sees the padding
            crops = self._one_view(images, *args, do_pad=False, **kwargs)
            data["detector_pixel_values"] = crops["pixel_values"]
        return data

    def _one_view(self, images: list[np.ndarray], *args: Any, fast: bool = False, **kwargs: Any) -> BatchFeature:
        if not fast:
            return super()._preprocess(images, *args, **kwargs)
        settings = {name: value for name, value in self.to_dict().items() if name in LlavaImageProcessor().to_dict()}
        settings["do_pad"] = kwargs["do_pad"]
        tensors = [torch.from_numpy(np.ascontiguousarray(image)) for image in images]
        return LlavaImageProcessor(**settings)(tensors, return_tensors=kwargs.get("return_tensors"))
