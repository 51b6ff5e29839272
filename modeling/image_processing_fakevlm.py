"""FakeVLM preprocessing: CLIP's, either by centre crop or after padding to a square."""

from .image_processing_clip import ClipPictureProcessor

__all__ = ["FakeVLMImageProcessor"]


class FakeVLMImageProcessor(ClipPictureProcessor):
    """Pictures to `pixel_values` (batch, 3, height, width), float32, CLIP-normalised.

    `do_pad=False` is the newer official code's route (shortest edge to `size`, bicubic, centre crop: the ends of long
    pictures are lost), `do_pad=True` the first one's (padded to a square with the mean colour before that).
    """
