"""Loads a detector for a command; whatever is wrong ends in one line, not in a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfake_detectors.cli.console import fail
from deepfake_detectors.cli.options import DtypeName

if TYPE_CHECKING:
    from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline

__all__ = ["load_config", "load_pipeline"]


def load_config(model: str | None) -> tuple[str, Any]:
    """Resolve `--model` to the place to load from, and read the config there; ends the command if it cannot."""
    _quieten_libraries()
    from transformers import AutoConfig

    from deepfake_detectors.pipelines import check_model_source, resolve_model
    from deepfake_detectors.registration import FAMILIES

    try:
        source = resolve_model(model)
    except OSError as error:  # the package was built without its default
        fail(error)
    try:
        check_model_source(source)
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        # The Hub's answer does not say that the name may also have been meant as a folder.
        told = Path(source).exists() or isinstance(error, FileNotFoundError)
        absent = "" if told else " No folder of this name exists here either."
        fail(f"no detector could be loaded from {source}: {_one_line(error)}{absent}")
    if config.model_type not in FAMILIES:
        fail(
            f"{source} holds a model of type {config.model_type!r}, which is no detector family of this package "
            f"({', '.join(FAMILIES)}). Official weights have to be converted first: deepfake-detectors convert --help"
        )
    return source, config


def load_pipeline(model: str | None, device: str | None, dtype: DtypeName) -> DeepfakeDetectionPipeline:
    """Build the pipeline for `--model`, `--device` and `--dtype`; ends the command if it cannot."""
    source, _ = load_config(model)
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoProcessor

    from deepfake_detectors.pipelines import pipeline

    _check_device(device)
    try:
        # Not through transformers.pipeline, which buries the cause under tracebacks of its own attempts.
        detector = AutoModel.from_pretrained(source, dtype=dtype.value)
        processor = AutoProcessor.from_pretrained(source)
        return pipeline(model=detector, processor=processor, device=device)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        fail(f"no detector could be loaded from {source}: {_one_line(error)}")


def _check_device(device: str | None) -> None:
    if device is None:
        return
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        fail(f"--device {device}: {_one_line(error)}")
    module = getattr(torch, kind, None)
    if kind != "cpu" and not (module is not None and hasattr(module, "is_available") and module.is_available()):
        fail(f"--device {device}: this machine (or this build of PyTorch) has no {kind}; use --device cpu.")


def _quieten_libraries() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
