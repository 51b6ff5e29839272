"""Makes the detectors known to transformers' Auto classes, and the task to its pipelines.

The only file that touches private parts of transformers: a new Auto class cannot be made with its public ones.
"""

from collections import OrderedDict

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoProcessor,
)
from transformers.models import auto as auto_module
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping, auto_class_update
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.image_processing_m2f2_det import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.processing_verdict import VerdictProcessor

__all__ = ["FAMILIES", "AutoModelForDeepfakeDetection", "register_families"]

FAMILIES = ("m2f2_det",)


class AutoModelForDeepfakeDetection(_BaseAutoModelClass):
    """`from_pretrained` and `from_config` give the verdict class of any family of this package."""

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


AutoModelForDeepfakeDetection = auto_class_update(  # type: ignore[misc]
    AutoModelForDeepfakeDetection, head_doc="deepfake detection"
)


def register_families() -> None:
    """Register every family once; importing the package calls it."""
    # Remote code may name the new Auto class only if transformers can find it in its own module.
    auto_module.AutoModelForDeepfakeDetection = AutoModelForDeepfakeDetection

    AutoConfig.register("m2f2_det", M2F2DetConfig)
    AutoModel.register(M2F2DetConfig, (M2F2DetForDeepfakeDetection,))
    AutoModelForDeepfakeDetection.register(M2F2DetConfig, M2F2DetForDeepfakeDetection)
    AutoModelForImageClassification.register(M2F2DetConfig, M2F2DetForDeepfakeDetection)
    AutoProcessor.register(M2F2DetConfig, VerdictProcessor)
    # One class behind both keys: its own switch `fast` chooses the backend, PIL being the faithful one.
    AutoImageProcessor.register(
        M2F2DetConfig, image_processor_classes={"pil": M2F2DetImageProcessor, "torchvision": M2F2DetImageProcessor}
    )
