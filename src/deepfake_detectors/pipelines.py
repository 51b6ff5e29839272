"""`pipeline()`: transformers' call with this package's own pipeline class, and where a model may come from."""

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

    The difference shows on folders whose config names a pipeline file of its own: there transformers demands
    `trust_remote_code=True` and runs the folder's copy, although this package is installed.

    Args:
        task: `"deepfake-detection"`, the only task here.
        model: a folder or Hub id of a detector, the name of a built-in checkpoint (`checkpoints.BUILT_IN`), or a
            loaded detector (then pass its `processor` too). The default is built in and needs no network. A stock
            folder or Hub id of a chat model about images is asked zero-shot (`chat_vlm`), which the log remarks.
        family: of a stock folder that holds a family's weights in the layout of a library class.
        kwargs: as in `transformers.pipeline`, and the call arguments of `DeepfakeDetectionPipeline`.

    Raises:
        ValueError: for another task, for official files that were never converted (the message says how to), for a
            model that is not a detector, and for arguments out of range.
        OSError: if there is no such model.
    """
    if task != TASK:
        raise ValueError(f"task is {task!r}, but the only task here is {TASK!r}. For a model, write model={task!r}.")
    kwargs.setdefault("trust_remote_code", False)
    if model is None or isinstance(model, (str, Path)):
        model = resolve_model(model)
        check_model_source(model)
        hub: dict[str, Any] = {name: kwargs[name] for name in ("revision", "token") if name in kwargs}
        found = open_checkpoint(model, family, config=kwargs.get("config"), **hub)
        if found.stock:  # of which transformers.pipeline would load whatever `custom_pipelines` in the folder names
            options: dict[str, Any] = {name: kwargs.pop(name) for name in ("dtype", "device_map") if name in kwargs}
            options = {"dtype": "auto", **options, **hub, **kwargs.pop("model_kwargs", {})}
            kwargs.pop("config", None)
            model = found.load_model(**options)
            kwargs.setdefault("processor", found.load_processor(**hub))
    elif family is not None:
        raise ValueError(f"family is {family!r}, but a loaded model says itself what it is; leave `family` out.")
    return transformers.pipeline(task, model=model, pipeline_class=DeepfakeDetectionPipeline, **kwargs)


def resolve_model(model: str | Path | None) -> str:
    """Return the folder or Hub id to load: the default for `None`, a built-in checkpoint by its name, else `model`."""
    if model is None:
        model = DEFAULT
    return str(built_in_path(str(model)) if str(model) in BUILT_IN and not Path(model).exists() else model)


def load_config(model: str | Path | None, family: str | None = None) -> tuple[str, Any]:
    """Return where a detector is loaded from, and its config.

    Args:
        model: as in `pipeline`, but not a loaded detector.
        family: as in `pipeline`.

    Raises:
        ValueError: if there is no detector in it.
        OSError: if there is no such model.
    """
    source = resolve_model(model)
    check_model_source(source)
    try:
        with model_faults(source):
            config = open_checkpoint(source, family).load_config()
    except UnconvertedCheckpointError:
        raise
    except (OSError, ValueError) as error:
        # The Hub's answer does not say that the name may also have been meant as a folder.
        absent = "" if Path(source).exists() else " There is no folder of this name here either."
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"No detector could be loaded from {source}: {error}{absent}") from error
    return source, config


def load_detector(
    model: str | Path | None = None, device: str | None = None, dtype: str = "auto", family: str | None = None
) -> DeepfakeDetectionPipeline:
    """Return the pipeline of a detector. What is wrong with a folder is reported by its first cause.

    Args:
        model: as in `pipeline`, but not a loaded detector.
        device: such as `"cuda:0"`; by default the best there is.
        dtype: `"auto"` (as saved), `"float32"`, `"bfloat16"` or `"float16"`.
        family: as in `pipeline`.

    Raises:
        ValueError: if there is no complete detector in `model`, or no such device.
        OSError: if there is no such model.
        ImportError: if the detector needs a library that is not installed.
    """
    source, _ = load_config(model, family)
    if device is not None:
        _check_device(device)
    # Not by transformers.pipeline, which buries the cause under tracebacks of its own attempts.
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
        raise ValueError(f"device is {device!r}, but this machine, or this build of PyTorch, has no {kind}.")


def check_model_source(model: str | Path) -> None:
    """Refuse what is neither a folder to load nor may be a Hub id.

    Raises:
        UnconvertedCheckpointError: for an official checkpoint that was never converted.
        ValueError: for a folder without a config.
        FileNotFoundError: for a path that does not exist.
    """
    path = Path(model)
    # One slash may be a Hub id; these cannot.
    if not path.exists() and (path.is_absolute() or len(path.parts) > 2 or str(model).startswith((".", "~"))):
        raise FileNotFoundError(f"There is no folder {model}.")
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
            f"{path} holds official weights ({', '.join(file.name for file in official)}), not a folder that can be "
            f"loaded. Families: {', '.join(FAMILIES)}."
        )
        raise UnconvertedCheckpointError(fault, None, official[0] if len(official) == 1 else path)
