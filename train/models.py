"""From a recipe to a model and its processor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, PreTrainedModel

from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.modeling.image_processing_clip import M2F2DetImageProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.registration import AutoModelForDeepfakeDetection
from deepfake_detectors.train.arguments import ModelArguments
from deepfake_detectors.train.soft_words import load_soft_words

__all__ = ["build_model", "fit_standardization", "load_pretrained_parts"]

IMAGE_PROCESSORS = {"m2f2_det": M2F2DetImageProcessor, "lvlm_dfd": LvlmDfdImageProcessor}
SOFT_WORD_TYPES = ("instructblip", "antifakeprompt")
# Why a family cannot be built from random weights, or not be trained here at all.
ELSEWHERE = {
    "antifakeprompt": "its words are trained on an InstructBLIP: name that with model_name_or_path",
    "fakevlm": "it learns from texts: python -m deepfake_detectors.train.train_sft",
}


def build_model(arguments: ModelArguments) -> tuple[Any, Any]:
    """The verdict model, with random weights or from a checkpoint, and its processor.

    What is trained is float32, whatever a checkpoint was saved in; the frozen InstructBLIP below AntifakePrompt's
    words keeps its precision. Mixed precision is a matter of `bf16` and `fp16` of the training arguments.

    Raises:
        ValueError: for an unknown family, a config field out of range, or fields that do not go together.
    """
    if arguments.model_name_or_path is not None:
        model, processor = _from_checkpoint(arguments)
    else:
        if arguments.model_type not in IMAGE_PROCESSORS:
            reason = f" ({ELSEWHERE[arguments.model_type]})" if arguments.model_type in ELSEWHERE else ""
            raise ValueError(
                f"model_type is {arguments.model_type!r}{reason}, known are {', '.join(IMAGE_PROCESSORS)}."
            )
        config = AutoConfig.for_model(arguments.model_type, **arguments.model_config)
        model = AutoModelForDeepfakeDetection.from_config(config)
        processor = VerdictProcessor(IMAGE_PROCESSORS[arguments.model_type](**arguments.image_processor))
    load_pretrained_parts(model, arguments.pretrained_parts)
    return model, processor


def _from_checkpoint(arguments: ModelArguments) -> tuple[Any, Any]:
    source = arguments.model_name_or_path
    family = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
    if family in SOFT_WORD_TYPES:
        return load_soft_words(source, arguments.model_config, arguments.image_processor)
    if family in ELSEWHERE:
        raise ValueError(f"model_name_or_path {source} is a {family}: {ELSEWHERE[family]}.")
    given = [name for name in ("model_config", "image_processor") if getattr(arguments, name)]
    if given:
        raise ValueError(
            f"{' and '.join(given)} cannot be set with model_name_or_path: the checkpoint brings its own."
        )
    model = AutoModelForDeepfakeDetection.from_pretrained(source, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(source)
    if not isinstance(processor, VerdictProcessor):  # the folder also holds a language model, this training does not
        processor = VerdictProcessor(processor.image_processor)
    return model, processor


def load_pretrained_parts(model: nn.Module, parts: dict[str, str]) -> None:
    """Replace the weights of sub-modules by published ones; every weight of the part must be there and fit.

    Args:
        model: with random weights.
        parts: module name -> where its weights are: folder or Hub id for a part that is a model of transformers,
            the name of a pretrained network for one of timm.

    Raises:
        ValueError: for a module that does not exist or is neither, or for weights that do not fit.
    """
    for name, source in parts.items():
        try:
            part = model.get_submodule(name)
        except AttributeError as error:
            known = ", ".join(
                child for child, module in model.named_modules() if child and isinstance(module, PreTrainedModel)
            )
            raise ValueError(f"pretrained_parts names {name!r}; the model's own models are {known}.") from error
        if isinstance(part, PreTrainedModel):
            weights = type(part).from_pretrained(source, dtype=torch.float32).state_dict()
        elif hasattr(part, "pretrained_cfg"):
            import timm

            weights = timm.create_model(source, pretrained=True, num_classes=0).state_dict()
        else:
            raise ValueError(
                f"pretrained_parts names {name!r}, a {type(part).__name__}; only models of transformers and networks "
                "of timm have published weights."
            )
        try:
            part.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"The weights of {source} do not fit {name}: {error}") from error


def fit_standardization(model: nn.Module, batches: Iterable[torch.Tensor]) -> bool:
    """Let the parts of a model that standardise their input with statistics of the training data measure these.

    Args:
        model: any model; its parts are asked for a method `fit_standardization`.
        batches: `pixel_values` of training pictures.

    Returns:
        Whether there was such a part; `batches` is not read otherwise.
    """
    parts = [module for module in model.modules() if module is not model and hasattr(module, "fit_standardization")]
    if len(parts) > 1:
        raise ValueError(
            f"{type(model).__name__} has {len(parts)} parts that measure their input, expected at most one."
        )
    for part in parts:
        part.fit_standardization(batches)
    return bool(parts)
