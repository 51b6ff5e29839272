"""CLIP's preprocessing as the official codes do it on PIL, bit for bit; the base of several families."""

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, LlavaImageProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.processing_utils import ImagesKwargs, Unpack

from .picture_arrays import as_bytes

__all__ = ["ClipPictureProcessor", "ClipPictureProcessorKwargs"]


class ClipPictureProcessorKwargs(ImagesKwargs, total=False):
    """
    fast: use the torchvision backend. Quicker, but about 0.3 % of the values differ by one or two grey levels.
    """

    fast: bool


class ClipPictureProcessor(LlavaImageProcessorPil):
    """Pictures to `pixel_values` (batch, 3, height, width), float32, CLIP-normalised.

    Shortest edge to `size` (bicubic), centre crop to `crop_size`, 1/255, CLIP mean and deviation. `do_pad=True` first
    pads to a square with the mean colour (122, 116, 104), LLaVA's "pad" mode. Float arrays in [0, 1] are taken as
    8-bit pictures divided by 255 (what `ToTensor` gives) and turned back, by truncation as in the official codes.
    """

    size = {"shortest_edge": 336}
    crop_size = {"height": 336, "width": 336}
    fast = False
    valid_kwargs = ClipPictureProcessorKwargs

    def __init__(self, **kwargs: Unpack[ClipPictureProcessorKwargs]) -> None:
        super().__init__(**kwargs)

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        return super().process_image(as_bytes(image), *args, **kwargs)

    def _preprocess(self, images: list[np.ndarray], *args: Any, fast: bool = False, **kwargs: Any) -> BatchFeature:
        if not fast:
            return super()._preprocess(images, *args, **kwargs)
        settings = {name: value for name, value in self.to_dict().items() if name in LlavaImageProcessor().to_dict()}
        settings["do_pad"] = kwargs["do_pad"]
        backend = self._tensor_backend(settings)
        tensors = [torch.from_numpy(np.ascontiguousarray(image)) for image in images]
        return backend(tensors, return_tensors=kwargs.get("return_tensors"))

    def _tensor_backend(self, settings: dict[str, Any]) -> LlavaImageProcessor:
        """What `fast` uses; `settings` are this processor's."""
        return LlavaImageProcessor(**settings)
