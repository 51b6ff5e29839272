"""M2F2-Det preprocessing: CLIP's, and a second view for the detector where the language model's is padded."""

from typing import Any

import numpy as np
from transformers import BatchFeature

from .image_processing_clip import ClipPictureProcessor

__all__ = ["M2F2DetImageProcessor"]


class M2F2DetImageProcessor(ClipPictureProcessor):
    """Pictures to `pixel_values` (batch, 3, height, width), float32, CLIP-normalised.

    CNN and CLIP read the same tensor. With `do_pad=True`, LLaVA's mode for the language model, `pixel_values` is
    padded, and the crop, which the detector's CNN wants, is `detector_pixel_values`.
    """

    def _preprocess(self, images: list[np.ndarray], *args: Any, do_pad: bool | None, **kwargs: Any) -> BatchFeature:
        data = super()._preprocess(images, *args, do_pad=do_pad, **kwargs)
        if do_pad:  # the detector's CNN never sees the padding
            crops = super()._preprocess(images, *args, do_pad=False, **kwargs)
            data["detector_pixel_values"] = crops["pixel_values"]
        return data
