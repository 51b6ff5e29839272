"""Makes the detectors known to transformers' Auto classes, and the task to its pipelines.

The only file that touches private parts of transformers: a new Auto class cannot be made with its public ones.
"""

from collections import OrderedDict
from typing import Any

import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedConfig,
)
from transformers.models import auto as auto_module
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping, auto_class_update
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

from deepfake_detectors.checkpoints import DEFAULT, built_in_path
from deepfake_detectors.families import FAMILIES, Family, resolve, unconverted_remedy
from deepfake_detectors.modeling.detection import HUB_ARGUMENTS, VerdictProcessor
from deepfake_detectors.modeling.pipeline_deepfake_detection import TASK, DeepfakeDetectionPipeline

__all__ = ["AutoModelForDeepfakeDetection", "register_families"]


class AutoModelForDeepfakeDetection(_BaseAutoModelClass):
    """Load the verdict class of any family: `from_pretrained` and `from_config`."""

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
    """Register every family and the task, once; importing the package calls it."""
    # Remote code may name the new Auto class only if transformers can find it in its own module.
    auto_module.AutoModelForDeepfakeDetection = AutoModelForDeepfakeDetection
    for family in FAMILIES.values():
        _register_family(family)
    # AutoProcessor finds a second processor of a family by the name in its folder, in the values of this mapping.
    PROCESSOR_MAPPING.register(VerdictProcessor, VerdictProcessor)

    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=DeepfakeDetectionPipeline,
            # Stock vision-language models would load without their head through AutoModel alone.
            pt_model=(AutoModelForImageTextToText, AutoModel),
            # The revision is ignored for a folder, but the registry insists on one.
            default={"model": (str(built_in_path(DEFAULT)), "main")},
            type="image",
        )


def _register_family(family: Family) -> None:
    """`AutoModel` chooses among the classes by `config.architectures`."""
    config, image_processor = family.load("config"), family.load("image_processor")
    AutoConfig.register(config.model_type, config)
    AutoModel.register(config, family.model_classes)
    AutoModelForDeepfakeDetection.register(config, family.load("verdict"))
    for door, role in family.doors.items():
        getattr(transformers, door).register(config, family.load(role))
    for model_type, component in family.components.items():
        component_config = resolve(component["config"])
        AutoConfig.register(model_type, component_config)
        AutoModel.register(component_config, resolve(component["model"]))
    AutoProcessor.register(config, family.load("processor"))
    # One class behind both keys: PIL is the faithful backend, and a switch of the class chooses another.
    AutoImageProcessor.register(
        config, image_processor_classes={"pil": image_processor, "torchvision": image_processor}
    )
