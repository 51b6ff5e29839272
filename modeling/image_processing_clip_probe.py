"""Preprocessing for CLIP probes: that of CLIP, after giving every image the same recent compression history."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from transformers import BatchFeature
from transformers.image_transforms import get_resize_output_image_size

from .image_loading import load_image
from .image_processing_clip import ClipPictureProcessor, ClipPictureProcessorKwargs, shortest_edge_size

__all__ = ["ClipProbeImageProcessor", "ClipProbeImageProcessorKwargs", "same_history"]

# Settings of a head's preprocessing, with their defaults.
HEAD_SETTINGS: dict[str, Any] = {"shrink_to": None, "jpeg_quality": None, "do_resize": True}
CHROMA_SUBSAMPLING = "4:2:0"


class ClipProbeImageProcessorKwargs(ClipPictureProcessorKwargs, total=False):
    """
    heads: name -> preprocessing settings for that head, see `ClipProbeImageProcessor`.
    default_head: the head to prepare images for if none is named.
    head: prepare for this head.
    shrink_to: replaces the head's own value, for training on small images.
    """

    heads: dict
    default_head: str | None
    head: str | None
    shrink_to: int | None


class ClipProbeImageProcessor(ClipPictureProcessor):
    """Images to `pixel_values` (batch, 3, height, width), float32, CLIP-normalised, for one of the model's heads.

    Shortest edge to `size` (bicubic), centre crop to `crop_size`, 1/255, CLIP mean and deviation. `heads` adds steps
    for some heads; heads that are not listed get only these steps:

    - `shrink_to`: first shrink the shortest edge to this many pixels (bicubic; never enlarge);
    - `jpeg_quality`: then save as JPEG with this quality (4:2:0) and decode again. Both hide the origin of an image,
      so that a probe does not learn who saved it;
    - `do_resize`: `False` crops the centre without resizing, and pads small images with zeros, as UniversalFakeDetect
      does.

    If `head` is given, the output contains it, so that `model.detect(**inputs)` uses that head.
    """

    size = {"shortest_edge": 224}
    crop_size = {"height": 224, "width": 224}
    heads: dict[str, Any] = {}
    default_head = None
    head = None
    shrink_to = None
    valid_kwargs = ClipProbeImageProcessorKwargs

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = {name: _checked(name, settings) for name, settings in self.heads.items()}
        if self.default_head is None and self.heads:
            self.default_head = next(iter(self.heads))
        if self.default_head is not None:
            self._settings(self.default_head)

    def _settings(self, head: str | None) -> dict[str, Any]:
        name = self.default_head if head is None else head
        if name is None:
            return HEAD_SETTINGS
        if name not in self.heads:
            raise ValueError(
                f"head is {head!r}, this processor prepares for {', '.join(map(repr, sorted(self.heads)))}."
            )
        return self.heads[name]

    def resized_side(self, head: str | None = None) -> int | None:
        own = self._settings(head)
        return own["shrink_to"] or (super().resized_side() if own["do_resize"] else None)

    def _shrunk(self, image: Image.Image, settings: Mapping[str, Any]) -> Image.Image:
        """Apply the head's shrinking and compression before resizing."""
        own = self._settings(settings.get("head"))
        edge = settings.get("shrink_to") or own["shrink_to"]
        if edge is not None and min(image.size) > edge:
            height, width = shortest_edge_size(image, edge)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        if own["jpeg_quality"] is not None or not own["do_resize"]:
            return image
        return super()._shrunk(image, settings)

    def _preprocess(
        self,
        images: list[np.ndarray],
        *args: Any,
        do_resize: bool = True,
        head: str | None = None,
        shrink_to: int | None = None,
        heads: Mapping[str, Any] | None = None,
        default_head: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        settings = self._settings(head)
        edge, quality = shrink_to or settings["shrink_to"], settings["jpeg_quality"]
        images = [same_history(image, edge, quality) for image in images]
        data = super()._preprocess(images, *args, do_resize=do_resize and settings["do_resize"], **kwargs)
        if head is not None:
            data["head"] = head
        return data


def same_history(image: np.ndarray, shrink_to: int | None, jpeg_quality: int | None) -> np.ndarray:
    """Shrink and compress one image.

    Args:
        image: `(3, height, width)` uint8.
        shrink_to: upper limit of the shortest edge, in pixels.
        jpeg_quality: 1 to 95.

    Returns:
        uint8 of the same layout.
    """
    small = shrink_to is None or min(image.shape[-2:]) <= shrink_to
    if small and jpeg_quality is None:
        return image
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    if not small:
        height, width = get_resize_output_image_size(
            image, shrink_to, default_to_square=False, input_data_format="channels_first"
        )
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    if jpeg_quality is not None:
        file = BytesIO()
        picture.save(file, "JPEG", quality=jpeg_quality, subsampling=CHROMA_SUBSAMPLING)
        picture = load_image(file.getvalue())
    return np.asarray(picture).transpose(2, 0, 1)


def _checked(name: str, settings: Any) -> dict[str, Any]:
    if not isinstance(settings, Mapping) or set(settings) - set(HEAD_SETTINGS):
        raise ValueError(f"Head {name!r} has the settings {settings!r}, known are {', '.join(HEAD_SETTINGS)}.")
    settings = {**HEAD_SETTINGS, **settings}
    for field, lowest, highest in (("shrink_to", 1, None), ("jpeg_quality", 1, 95)):
        value = settings[field]
        if value is not None and (
            isinstance(value, bool)
            or not isinstance(value, int)
            or value < lowest
            or (highest is not None and value > highest)
        ):
            raise ValueError(
                f"{field} of head {name!r} is {value!r}, expected a whole number of {lowest} or more"
                f"{'' if highest is None else f', at most {highest}'}, or None."
            )
    if not isinstance(settings["do_resize"], bool):
        raise ValueError(f"do_resize of head {name!r} is {settings['do_resize']!r}, expected true or false.")
    return settings
