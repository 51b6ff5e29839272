"""`pipeline()`: transformers' function with this package's pipeline class, and the resolution of model names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import CONFIG_NAME

from deepfake_detectors.checkpoints import BUILT_IN, DEFAULT, built_in_path
from deepfake_detectors.families import FAMILIES, refuse_unconverted
from deepfake_detectors.files import read_json_object
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.model_folders import check_model_folder, model_faults
from deepfake_detectors.modeling.detection import OFFICIAL_SUFFIXES, UnconvertedCheckpointError
from deepfake_detectors.modeling.pipeline_deepfake_detection import TASK, DeepfakeDetectionPipeline

__all__ = ["check_model_source", "load_config", "load_detector", "pipeline", "resolve_model"]


def pipeline(
    task: str = TASK, model: Any = None, family: str | None = None, **kwargs: Any
) -> DeepfakeDetectionPipeline:
    """Build `transformers.pipeline("deepfake-detection", ...)`, but always with the pipeline class of this package.

    This matters for folders whose config refers to its own pipeline file: transformers requires
    `trust_remote_code=True` for them and runs the folder's copy, even though this package is installed.

    Args:
        task: `"deepfake-detection"`, the only task here.
        model: a folder or Hub id of a detector, the name of a built-in checkpoint (`checkpoints.BUILT_IN`), or a
            loaded detector (then pass its `processor` too). The default is built in and works offline. A stock folder
            or Hub id of a chat model for images is used zero-shot (`chat_vlm`), with a warning.
        family: family of a stock folder with a family's weights in the layout of a library class.
        kwargs: as in `transformers.pipeline`, and the call arguments of `DeepfakeDetectionPipeline`.

    Raises:
        ValueError: for another task, for unconverted official files (the message has the command), for a model that is
            not a detector, and for arguments out of range.
        OSError: if the model does not exist.
    """
    if task != TASK:
        raise ValueError(
            f"task is {task!r}, but the only supported task is {TASK!r}. To select a model, use model={task!r}."
        )
    kwargs.setdefault("trust_remote_code", False)
    if model is None or isinstance(model, (str, Path)):
        model = resolve_model(model)
        check_model_source(model)
        hub: dict[str, Any] = {name: kwargs[name] for name in ("revision", "token") if name in kwargs}
        found = open_checkpoint(model, family, config=kwargs.get("config"), **hub)
        if found.stock:  # for which transformers.pipeline would load the `custom_pipelines` of the folder
            options: dict[str, Any] = {name: kwargs.pop(name) for name in ("dtype", "device_map") if name in kwargs}
            options = {"dtype": "auto", **options, **hub, **kwargs.pop("model_kwargs", {})}
            kwargs.pop("config", None)
            model = found.load_model(**options)
            kwargs.setdefault("processor", found.load_processor(**hub))
    elif family is not None:
        raise ValueError(f"family is {family!r}, but a loaded model already has a family; leave out `family`.")
    return transformers.pipeline(task, model=model, pipeline_class=DeepfakeDetectionPipeline, **kwargs)


def resolve_model(model: str | Path | None) -> str:
    """Return the folder or Hub id to load: the default for `None`, a built-in checkpoint by name, or else `model`."""
    if model is None:
        model = DEFAULT
    return str(built_in_path(str(model)) if str(model) in BUILT_IN and not Path(model).exists() else model)


def load_config(model: str | Path | None, family: str | None = None) -> tuple[str, Any]:
    """Return the source of a detector and its config.

    Args:
        model: as in `pipeline`, but not a loaded detector.
        family: as in `pipeline`.

    Raises:
        ValueError: if it does not contain a detector.
        OSError: if the model does not exist.
    """
    source = resolve_model(model)
    check_model_source(source)
    try:
        with model_faults(source):
            config = open_checkpoint(source, family).load_config()
    except UnconvertedCheckpointError:
        raise
    except (OSError, ValueError) as error:
        # The Hub's answer does not mention that the name may have been meant as a folder.
        absent = "" if Path(source).exists() else " There is no folder with this name either."
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"No detector could be loaded from {source}: {error}{absent}") from error
    return source, config


def load_detector(
    model: str | Path | None = None, device: str | None = None, dtype: str = "auto", family: str | None = None
) -> DeepfakeDetectionPipeline:
    """Return the pipeline of a detector. Errors in a folder are reported with their original cause.

    Args:
        model: as in `pipeline`, but not a loaded detector.
        device: such as `"cuda:0"`; by default the best available one.
        dtype: `"auto"` (as saved), `"float32"`, `"bfloat16"` or `"float16"`.
        family: as in `pipeline`.

    Raises:
        ValueError: if `model` does not contain a complete detector, or the device does not exist.
        OSError: if the model does not exist.
        ImportError: if the detector needs a library that is not installed.
    """
    source, _ = load_config(model, family)
    if device is not None:
        _check_device(device)
    # Not with transformers.pipeline, which hides the cause among the tracebacks of its attempts.
    with model_faults(source):
        found = open_checkpoint(source, family)
        detector, processor = found.load_model(dtype=dtype), found.load_processor()
        return pipeline(model=detector, processor=processor, device=device)


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}: {error}") from error
    module = getattr(torch, kind, None)
    if kind != "cpu" and not (module is not None and hasattr(module, "is_available") and module.is_available()):
        raise ValueError(
            f"device is {device!r}, but {kind} is not available on this machine or in this build of PyTorch."
        )


def check_model_source(model: str | Path) -> None:
    """Refuse names that are neither a model folder nor a possible Hub id.

    Raises:
        UnconvertedCheckpointError: for an unconverted official checkpoint.
        ValueError: for a folder without a config.
        FileNotFoundError: for a path that does not exist.
    """
    path = Path(model)
    # A name with one slash may be a Hub id; these cannot.
    if not path.exists() and (path.is_absolute() or len(path.parts) > 2 or str(model).startswith((".", "~"))):
        raise FileNotFoundError(f"The folder {model} does not exist.")
    official: list[Path] = []
    if path.is_file():
        official = [path]
    elif path.is_dir() and not any((path / name).exists() for name in (CONFIG_NAME, "adapter_config.json")):
        official = sorted(child for child in path.iterdir() if child.suffix in OFFICIAL_SUFFIXES)
        if not official:
            raise ValueError(f"{path} is not a model folder (no {CONFIG_NAME}).")
    check_model_folder(path)
    if (path / CONFIG_NAME).is_file():
        fields = read_json_object(path / CONFIG_NAME)
        refuse_unconverted(fields, path)
        if "model_type" not in fields:
            official = [path]
    if official:
        fault = (
            f"{path} contains official weights ({', '.join(file.name for file in official)}), which cannot be loaded "
            f"directly. Families: {', '.join(FAMILIES)}."
        )
        raise UnconvertedCheckpointError(fault, None, official[0] if len(official) == 1 else path)
