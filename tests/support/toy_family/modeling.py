"""The least that a family needs: brightness is the evidence, and bright areas are the mask."""

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.modeling_outputs import ImageClassifierOutput

from deepfake_detectors.modeling.configuration_detection import check_detection_fields
from deepfake_detectors.modeling.detection import DeepfakeDetectionMixin, DeepfakeDetectionOutput


class ToyConfig(PreTrainedConfig):
    model_type = "toy"

    calibration: dict | None = None
    operating_points: dict | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        check_detection_fields(self)


class ToyMaskConfig(ToyConfig):
    model_type = "toy_mask"


class ToyImageProcessor(BaseImageProcessor):
    """Images to `pixel_values` (batch, 3, 8, 8) in [0, 1]."""

    model_input_names = ["pixel_values"]

    def preprocess(self, images, **kwargs):
        images = images if isinstance(images, list) else [images]
        arrays = [np.asarray(image.resize((8, 8)), dtype=np.float32).transpose(2, 0, 1) / 255 for image in images]
        return BatchFeature({"pixel_values": torch.from_numpy(np.stack(arrays))})

    def mask_to_picture(self, mask, picture_size):
        return Image.fromarray((mask.numpy() * 255).astype(np.uint8)).resize(picture_size)


class ToyProcessor(ProcessorMixin):
    def __init__(self, image_processor=None, **kwargs):
        super().__init__(image_processor, **kwargs)


class ToyForDeepfakeDetection(DeepfakeDetectionMixin, PreTrainedModel):
    config_class = ToyConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(1, 2)
        self.post_init()

    def forward(self, pixel_values, labels=None):
        logits = self.head(pixel_values.mean(dim=(1, 2, 3))[:, None])
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class ToyMaskForDeepfakeDetection(ToyForDeepfakeDetection):
    config_class = ToyMaskConfig
    can_localize = True

    @torch.no_grad()
    def detect(self, pixel_values):
        logits = self.calibrate(self(pixel_values=pixel_values).logits)
        return DeepfakeDetectionOutput(logits=logits, mask=pixel_values.mean(dim=1))
