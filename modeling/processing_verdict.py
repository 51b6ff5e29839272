"""The processor of every folder that holds a verdict only: pictures in, `pixel_values` out, no tokenizer."""

from typing import Any

from transformers import ProcessorMixin

__all__ = ["VerdictProcessor"]


class VerdictProcessor(ProcessorMixin):
    """
    Args:
        image_processor: the family's image processor.
    """

    def __init__(self, image_processor: Any = None, **kwargs: Any) -> None:
        super().__init__(image_processor, **kwargs)
