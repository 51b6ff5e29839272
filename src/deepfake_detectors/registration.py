"""Makes the detectors known to transformers' Auto classes, and the task to its pipelines.

The only file that touches private parts of transformers: a new Auto class cannot be made with its public ones.
"""

from collections import OrderedDict
from importlib.resources import files
from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedConfig,
)
from transformers.models import auto as auto_module
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping, auto_class_update
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

from deepfake_detectors.modeling.configuration_antifakeprompt import AntifakePromptConfig
from deepfake_detectors.modeling.configuration_fakevlm import FakeVLMConfig
from deepfake_detectors.modeling.configuration_imagebind import ImageBindConfig
from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.detection import HUB_ARGUMENTS, unconverted_remedy
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.image_processing_fakevlm import FakeVLMImageProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.modeling.image_processing_m2f2_det import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from deepfake_detectors.modeling.modeling_imagebind import ImageBindModel
from deepfake_detectors.modeling.modeling_lvlm_dfd import LvlmDfdForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import LvlmDfdForConditionalGeneration
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from deepfake_detectors.modeling.pipeline_deepfake_detection import TASK, DeepfakeDetectionPipeline
from deepfake_detectors.modeling.processing_antifakeprompt import AntifakePromptProcessor
from deepfake_detectors.modeling.processing_fakevlm import FakeVLMProcessor
from deepfake_detectors.modeling.processing_lvlm_dfd import LvlmDfdProcessor
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.processing_verdict import VerdictProcessor

__all__ = ["FAMILIES", "AutoModelForDeepfakeDetection", "register_families"]

FAMILIES = ("antifakeprompt", "fakevlm", "lvlm_dfd", "m2f2_det")


class AutoModelForDeepfakeDetection(_BaseAutoModelClass):
    """`from_pretrained` and `from_config` give the verdict class of any family of this package."""

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


AutoModelForDeepfakeDetection = auto_class_update(  # type: ignore[misc]
    AutoModelForDeepfakeDetection, head_doc="deepfake detection"
)


_load_detector = AutoModelForDeepfakeDetection.from_pretrained


def _load_or_refuse(cls: Any, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
    if "config" not in kwargs:
        hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        fields = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub_kwargs)[0]
        if remedy := unconverted_remedy(fields, pretrained_model_name_or_path):
            found = fields.get("model_type")
            raise ValueError(f"{pretrained_model_name_or_path} is a checkpoint of model_type {found!r}. {remedy}")
    return _load_detector(pretrained_model_name_or_path, *model_args, **kwargs)


# Behind auto_class_update, which sets a from_pretrained of its own.
AutoModelForDeepfakeDetection.from_pretrained = classmethod(_load_or_refuse)


def register_families() -> None:
    """Register every family once; importing the package calls it."""
    # Remote code may name the new Auto class only if transformers can find it in its own module.
    auto_module.AutoModelForDeepfakeDetection = AutoModelForDeepfakeDetection

    _register_family(
        AntifakePromptConfig,
        [AntifakePromptForDeepfakeDetection],
        AntifakePromptProcessor,
        AntifakePromptImageProcessor,
    )
    _register_family(FakeVLMConfig, [FakeVLMForDeepfakeDetection], FakeVLMProcessor, FakeVLMImageProcessor)
    AutoModelForImageTextToText.register(FakeVLMConfig, FakeVLMForDeepfakeDetection)
    AutoConfig.register("imagebind", ImageBindConfig)
    AutoModel.register(ImageBindConfig, ImageBindModel)
    _register_family(
        LvlmDfdConfig,
        [LvlmDfdForDeepfakeDetection, LvlmDfdForConditionalGeneration],
        LvlmDfdProcessor,
        LvlmDfdImageProcessor,
    )
    AutoModelForImageTextToText.register(LvlmDfdConfig, LvlmDfdForConditionalGeneration)
    _register_family(
        M2F2DetConfig,
        [M2F2DetForDeepfakeDetection, M2F2DetForConditionalGeneration],
        M2F2DetProcessor,
        M2F2DetImageProcessor,
    )
    AutoModelForImageClassification.register(M2F2DetConfig, M2F2DetForDeepfakeDetection)
    AutoModelForImageTextToText.register(M2F2DetConfig, M2F2DetForConditionalGeneration)
    # AutoProcessor finds a second processor of a family by the name in its folder, in the values of this mapping.
    PROCESSOR_MAPPING.register(VerdictProcessor, VerdictProcessor)

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


def _register_family(config: Any, models: list[type], processor: type, image_processor: type) -> None:
    """`models` begins with the verdict class; `AutoModel` chooses among them by `config.architectures`."""
    AutoConfig.register(config.model_type, config)
    AutoModel.register(config, tuple(models))
    AutoModelForDeepfakeDetection.register(config, models[0])
    AutoProcessor.register(config, processor)
    # One class behind both keys: PIL is the faithful backend, and a switch of the class chooses another.
    AutoImageProcessor.register(
        config, image_processor_classes={"pil": image_processor, "torchvision": image_processor}
    )
