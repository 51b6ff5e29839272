"""Loads a detector for a command; whatever is wrong ends in one line, not in a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfake_detectors_cli.console import fail
from deepfake_detectors_cli.options import DtypeName

if TYPE_CHECKING:
    from deepfake_detectors.modeling.pipeline_deepfake_detection import DeepfakeDetectionPipeline

__all__ = ["load_config", "load_pipeline"]


def load_config(model: str | None) -> tuple[str, Any]:
    """Resolve `--model` to the place to load from, and read the config there; ends the command if it cannot."""
    from transformers.utils import logging as transformers_logging

    from deepfake_detectors import pipelines

    transformers_logging.disable_progress_bar()
    try:
        return pipelines.load_config(model)
    except (OSError, ValueError) as error:
        # The Hub's answer does not say that the name may also have been meant as a folder.
        told = model is None or Path(model).exists() or isinstance(error, FileNotFoundError)
        absent = "" if told else " No folder of this name exists here either."
        fail(f"no detector could be loaded from {model or 'the package'}: {_one_line(error)}{absent}")


def load_pipeline(model: str | None, device: str | None, dtype: DtypeName) -> DeepfakeDetectionPipeline:
    """Build the pipeline for `--model`, `--device` and `--dtype`; ends the command if it cannot."""
    load_config(model)
    from deepfake_detectors import pipelines

    try:
        return pipelines.load_detector(model, device, dtype.value)
    except (OSError, ValueError, ImportError) as error:
        fail(_one_line(error))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
