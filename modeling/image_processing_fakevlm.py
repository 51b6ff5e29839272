"""FakeVLM preprocessing: CLIP's, either by centre crop or after padding to a square."""

from typing import Any

import numpy as np
from transformers import BatchFeature

from .image_processing_m2f2_det import M2F2DetImageProcessor

__all__ = ["FakeVLMImageProcessor"]


class FakeVLMImageProcessor(M2F2DetImageProcessor):
    """Pictures to `pixel_values` (batch, 3, height, width), float32, CLIP-normalised; same steps as M2F2-Det's.

    `do_pad=False` is the newer official code's route (shortest edge to `size`, bicubic, centre crop: the ends of long
    pictures are lost), `do_pad=True` the first one's (padded to a square with the mean colour before that).
    """

    def _preprocess(self, images: list[np.ndarray], *args: Any, **kwargs: Any) -> BatchFeature:
        return self._one_view(images, *args, **kwargs)  # no second view for a detector beside
