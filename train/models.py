"""From a recipe to a model and its processor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoProcessor

from deepfake_detectors.modeling.image_processing_m2f2_det import M2F2DetImageProcessor
from deepfake_detectors.modeling.processing_verdict import VerdictProcessor
from deepfake_detectors.registration import AutoModelForDeepfakeDetection
from deepfake_detectors.train.arguments import ModelArguments

__all__ = ["build_model", "fit_standardization"]

IMAGE_PROCESSORS = {"m2f2_det": M2F2DetImageProcessor}


def build_model(arguments: ModelArguments) -> tuple[Any, VerdictProcessor]:
    """The model, with random weights or from a checkpoint, and its processor.

    Raises:
        ValueError: for an unknown family, or a config field out of range.
    """
    if arguments.model_name_or_path is not None:
        given = [name for name in ("model_config", "image_processor") if getattr(arguments, name)]
        if given:
            raise ValueError(
                f"{' and '.join(given)} cannot be set with model_name_or_path: the checkpoint brings its own."
            )
        model = AutoModelForDeepfakeDetection.from_pretrained(arguments.model_name_or_path)
        return model, AutoProcessor.from_pretrained(arguments.model_name_or_path)
    if arguments.model_type not in IMAGE_PROCESSORS:
        raise ValueError(f"model_type is {arguments.model_type!r}, known are {', '.join(IMAGE_PROCESSORS)}.")
    config = AutoConfig.for_model(arguments.model_type, **arguments.model_config)
    model = AutoModelForDeepfakeDetection.from_config(config)
    return model, VerdictProcessor(IMAGE_PROCESSORS[arguments.model_type](**arguments.image_processor))


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
