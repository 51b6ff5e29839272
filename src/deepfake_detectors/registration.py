"""Register the detectors with transformers' Auto classes, and the task with its pipelines.

This is the only file that uses private parts of transformers, because a new Auto class needs them.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoProcessor,
)
from transformers.models import auto as auto_module
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping, auto_class_update
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

from deepfake_detectors.checkpoints import DEFAULT, built_in_path
from deepfake_detectors.families import FAMILIES, Family, PluginError, leave_out, resolve
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.modeling.detection import HUB_ARGUMENTS, VerdictProcessor
from deepfake_detectors.modeling.pipeline_deepfake_detection import TASK, DeepfakeDetectionPipeline

__all__ = ["AutoModelForDeepfakeDetection", "register_families"]


class AutoModelForDeepfakeDetection(_BaseAutoModelClass):
    """Load the verdict class of any family: `from_pretrained` and `from_config`."""

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


AutoModelForDeepfakeDetection = auto_class_update(  # type: ignore[misc]
    AutoModelForDeepfakeDetection, head_doc="deepfake detection"
)


def _reading_stock_folders(load: Callable[..., Any]) -> Any:
    """Return a `from_pretrained` that passes stock folders to their family, and all others to `load`."""

    def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        source = pretrained_model_name_or_path
        config = kwargs.get("config")
        hub_kwargs = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        # A config passed by the caller decides by its class, as usual.
        if config is None or getattr(config, "model_type", None) not in FAMILIES:
            found = open_checkpoint(source, config=config, **hub_kwargs)
            if found.stock:
                return found.load_model(**{name: value for name, value in kwargs.items() if name != "config"})
        return load(source, *model_args, **kwargs)

    return classmethod(from_pretrained)


# After auto_class_update, which sets its own from_pretrained.
AutoModelForDeepfakeDetection.from_pretrained = _reading_stock_folders(AutoModelForDeepfakeDetection.from_pretrained)


class _AutoDetector(_BaseAutoModelClass):
    """Chooses a class for the stock pipeline: by `config.architectures` for a family, or else as for stock folders.

    With `AutoModelForImageTextToText` and `AutoModel` in its place, the pipeline would first try the language class
    twice on every folder without a language model, and load a broken folder four times.
    """

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES))


_AutoDetector.from_pretrained = _reading_stock_folders(_AutoDetector.from_pretrained)


def register_families() -> None:
    """Register all families and the task once; called on import of the package."""
    # Remote code can only refer to the new Auto class if transformers finds it in its own module.
    auto_module.AutoModelForDeepfakeDetection = AutoModelForDeepfakeDetection
    for family in list(FAMILIES.values()):
        try:
            _register_family(family)
        except PluginError as error:
            leave_out(family, error)
    # AutoProcessor finds a family's second processor by its name in the folder, among the values of this mapping.
    PROCESSOR_MAPPING.register(VerdictProcessor, VerdictProcessor)

    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=DeepfakeDetectionPipeline,
            pt_model=_AutoDetector,
            # The revision is ignored for a folder, but the registry requires one.
            default={"model": (str(built_in_path(DEFAULT)), "main")},
            type="image",
        )


def _register_family(family: Family) -> None:
    """Register one family.

    Raises:
        PluginError: for any error in the family of another package; none of it is then registered.
    """
    try:
        registrations = _registrations(family)
    except Exception as error:
        if family.plugin is None:
            raise
        raise PluginError(f"{type(error).__name__}: {error}") from error
    for register in registrations:
        register()


def _registrations(family: Family) -> list[Callable[[], None]]:
    """Return the calls that register a family, after checking that everything in its row exists.

    Raises:
        ValueError: for a name that contradicts the config or is used by transformers, and for a class without
            `detect`.
    """
    config, image_processor = family.load("config"), family.load("image_processor")
    if config.model_type != family.name:
        raise ValueError(f"the config's model_type is {config.model_type!r}, expected {family.name!r}")
    if family.name in CONFIG_MAPPING:
        raise ValueError(f"transformers already has a model_type {family.name!r}")
    for model_class in family.model_classes:
        if not hasattr(model_class, "detect"):
            raise ValueError(f"{model_class.__name__} has no `detect` method")
    calls: list[Callable[[], None]] = [
        partial(AutoConfig.register, family.name, config),
        # `AutoModel` chooses among the classes by `config.architectures`.
        partial(AutoModel.register, config, family.model_classes),
        partial(_AutoDetector.register, config, family.model_classes),
        partial(AutoModelForDeepfakeDetection.register, config, family.load("verdict")),
        partial(AutoProcessor.register, config, family.load("processor")),
        # The same class for both keys: PIL is the exact backend, and an option of the class chooses another.
        partial(
            AutoImageProcessor.register,
            config,
            image_processor_classes={"pil": image_processor, "torchvision": image_processor},
        ),
    ]
    calls += [
        partial(getattr(transformers, door).register, config, family.load(role)) for door, role in family.doors.items()
    ]
    for model_type, component in family.components.items():
        component_config = resolve(component["config"])
        calls.append(partial(AutoConfig.register, model_type, component_config))
        calls.append(partial(AutoModel.register, component_config, resolve(component["model"])))
    return calls
