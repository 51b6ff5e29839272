"""Makes the detectors known to transformers' Auto classes, and the task to its pipelines.

The only file that touches private parts of transformers: a new Auto class cannot be made with its public ones.
"""

from collections import OrderedDict
from importlib.resources import files

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoProcessor,
)
from transformers.models import auto as auto_module
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping, auto_class_update
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

from deepfake_detectors.modeling.configuration_imagebind import ImageBindConfig
from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.modeling.image_processing_m2f2_det import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_imagebind import ImageBindModel
from deepfake_detectors.modeling.modeling_lvlm_dfd import LvlmDfdForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import LvlmDfdForConditionalGeneration
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from deepfake_detectors.modeling.pipeline_deepfake_detection import TASK, DeepfakeDetectionPipeline
from deepfake_detectors.modeling.processing_lvlm_dfd import LvlmDfdProcessor
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.processing_verdict import VerdictProcessor

__all__ = ["FAMILIES", "AutoModelForDeepfakeDetection", "register_families"]

FAMILIES = ("m2f2_det", "lvlm_dfd")


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
    AutoModel.register(M2F2DetConfig, (M2F2DetForDeepfakeDetection, M2F2DetForConditionalGeneration))
    AutoModelForDeepfakeDetection.register(M2F2DetConfig, M2F2DetForDeepfakeDetection)
    AutoModelForImageClassification.register(M2F2DetConfig, M2F2DetForDeepfakeDetection)
    AutoModelForImageTextToText.register(M2F2DetConfig, M2F2DetForConditionalGeneration)
    AutoProcessor.register(M2F2DetConfig, M2F2DetProcessor)
    # AutoProcessor finds a second processor of a family by the name in its folder, in the values of this mapping.
    PROCESSOR_MAPPING.register(VerdictProcessor, VerdictProcessor)
    # One class behind both keys: its own switch `fast` chooses the backend, PIL being the faithful one.
    AutoImageProcessor.register(
        M2F2DetConfig, image_processor_classes={"pil": M2F2DetImageProcessor, "torchvision": M2F2DetImageProcessor}
    )
    AutoConfig.register("imagebind", ImageBindConfig)
    AutoModel.register(ImageBindConfig, ImageBindModel)
    AutoConfig.register("lvlm_dfd", LvlmDfdConfig)
    AutoModel.register(LvlmDfdConfig, (LvlmDfdForDeepfakeDetection, LvlmDfdForConditionalGeneration))
    AutoModelForDeepfakeDetection.register(LvlmDfdConfig, LvlmDfdForDeepfakeDetection)
    AutoModelForImageTextToText.register(LvlmDfdConfig, LvlmDfdForConditionalGeneration)
    AutoProcessor.register(LvlmDfdConfig, LvlmDfdProcessor)
    AutoImageProcessor.register(
        LvlmDfdConfig,
        image_processor_classes={"pil": LvlmDfdImageProcessor, "torchvision": LvlmDfdImageProcessor},
    )
    # The revision is not looked at for a folder, but the registry insists on one.
    default = (str(files("deepfake_detectors.default_checkpoint")), "main")
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=DeepfakeDetectionPipeline,
            pt_model=AutoModel,
            default={"model": default},
            type="image",
        )
