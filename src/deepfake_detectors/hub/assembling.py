"""Files of a published checkpoint: a complete model, learned words, or a PEFT adapter.

They include the code of its classes, for users without this package.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModel, LlavaForConditionalGeneration
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, CONFIG_NAME, PROCESSOR_NAME

from deepfake_detectors.evaluation.fitting import CALIBRATION_FILE
from deepfake_detectors.families import Family
from deepfake_detectors.files import read_json_object, weight_files
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.model_folders import model_faults
from deepfake_detectors.modeling.configuration_antifakeprompt import AntifakePromptConfig
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from deepfake_detectors.modeling.modeling_antifakeprompt_adapter import ADAPTER_FILE, save_soft_words
from deepfake_detectors.modeling.pipeline_deepfake_detection import TASK, DeepfakeDetectionPipeline
from deepfake_detectors.modeling.processing_antifakeprompt import AntifakePromptProcessor
from deepfake_detectors.pipelines import check_model_source, pipeline

__all__ = ["LICENSE_FILES", "Assembled", "Base", "add_code", "assemble"]

logger = logging.getLogger(__name__)

MAX_SHARD = "5GB"  # a 7B model in one file is slow to download and to resume
LICENSE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
CARRIED = (*LICENSE_FILES, CALIBRATION_FILE)


@dataclass(frozen=True)
class Base:
    """The base model of an adapter."""

    id: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Base:
        """Read `owner/name` or `owner/name@revision`.

        Raises:
            ValueError: for an invalid Hub id.
        """
        name, _, revision = text.partition("@")
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ValueError(f"`base` is {text!r}, which is not a Hub id owner/name ({error}).") from error
        return cls(name, revision or None)

    def as_card_entry(self) -> dict[str, Any]:
        return {"id": self.id, "revision": self.revision, "relation": "adapter"}


@dataclass(frozen=True)
class Assembled:
    """Contents of the folder.

    Attributes:
        family, class_name: `model_type` and class of the checkpoint.
        config: its config (for an adapter, that of its base) as a dict.
        parameters: number of weights in the folder.
        explains, localizes: abilities of the class.
        library: library that loads an adapter.
        base: base of an adapter; `None` for a complete model.
    """

    family: str
    class_name: str
    config: dict[str, Any]
    parameters: int
    explains: bool
    localizes: bool
    library: str = "transformers"
    base: Base | None = None

    @property
    def adapter(self) -> bool:
        return self.base is not None


def assemble(source: Path, target: Path, base: Base | None = None) -> Assembled:
    """Write the files to publish from `source` to the existing, empty folder `target`.

    Args:
        source: a folder that this package loads.
        target: gets weights, config, processor, code, licence files and the record of a calibration, but no card.
        base: replaces the base in an adapter's config.

    Raises:
        ValueError, FileNotFoundError: if `source` is not such a folder, if its weights are pickled or incomplete, or
            if the Hub id of an adapter's base is unknown.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"The folder {source} does not exist; pass the checkpoint folder to publish.")
    check_model_source(source)
    with model_faults(source):
        if not (source / CONFIG_NAME).is_file():
            found = _assemble_peft(source, target, base)
        elif _is_words(source):
            found = _assemble_words(source, target, base)
        else:
            found = _assemble_whole(source, target, base)
    _copy_present(source, target, CARRIED)
    return found


def _assemble_whole(source: Path, target: Path, base: Base | None) -> Assembled:
    if base is not None:
        raise ValueError(f"{source} is a complete model, not an adapter: leave out `base`.")
    checkpoint = open_checkpoint(source)
    family = checkpoint.family
    if not any(path.suffix == ".safetensors" for path in weight_files(source)):
        raise ValueError(
            f"{source} does not contain *.safetensors. Pickled weights are never published: load the folder and save "
            "it again "
            "with save_pretrained, or convert the official files with convert(family, sources, output)."
        )
    for nested in sorted(source.glob(f"*/{ADAPTER_CONFIG_NAME}")):
        if not nested.parent.name.startswith(PREFIX_CHECKPOINT_DIR):
            logger.warning(
                "%s contains an adapter, which is not published with the model: publish the result of merge(model, "
                "deltas, output), or only the adapter, with the published model as its `base`.",
                nested.parent,
            )
    try:  # not with transformers.pipeline, which hides the cause among the tracebacks of its attempts
        model, processor = checkpoint.load_model(dtype="auto"), checkpoint.load_processor()
    except SafetensorError as error:
        raise ValueError(f"The weights of {source} are damaged: {error}") from error
    detector = pipeline(model=model, processor=processor, device="cpu")
    options: dict[str, Any] = {"max_shard_size": MAX_SHARD}
    if isinstance(detector.model, LlavaForConditionalGeneration):
        # The stock class renames Llava's older weight names depending on the config's model_type, which is the
        # family's here, so its head would be random. Current names do not need renaming and work with every loader.
        options["save_original_format"] = False
    detector.save_pretrained(target, remote_code=True, **options)
    auto_map = read_json_object(target / CONFIG_NAME)["auto_map"]
    further = add_code(target, _doors(family, type(detector.model)))
    _add_fields(target / CONFIG_NAME, auto_map={**auto_map, **further})
    return _describe(type(detector.model), detector.model.config, detector.model.num_parameters())


def _doors(family: Family, model_class: type) -> dict[str, type]:
    """Return Auto class -> class for the stock pipelines that can also load this folder.

    A folder with the language model also loads as the verdict class, but not the reverse.
    """
    loaded = {door: (role, family.load(role)) for door, role in family.doors.items()}
    return {door: found for door, (role, found) in loaded.items() if found is model_class or role == "verdict"}


def _is_words(source: Path) -> bool:
    fields = read_json_object(source / CONFIG_NAME)
    own = fields.get("model_type") == AntifakePromptConfig.model_type
    return own and fields.get("base_model_name_or_path") is not None


def _assemble_words(source: Path, target: Path, base: Base | None) -> Assembled:
    """Write only the words; the base InstructBLIP is not needed or copied."""
    config = AntifakePromptConfig.from_pretrained(source)
    base = base or _named_base(config.base_model_name_or_path, None, source)
    words = _read_weights(source / ADAPTER_FILE)
    if not (source / PROCESSOR_NAME).is_file():
        raise ValueError(
            f"{source} does not contain {PROCESSOR_NAME} with the image statistics: save the words with their "
            "processor, save_adapter(folder, processor)."
        )
    save_soft_words(words, config, base.id, target)
    _copy_present(source, target, (PROCESSOR_NAME,))
    processor_map = {"AutoProcessor": AntifakePromptProcessor, "AutoImageProcessor": AntifakePromptImageProcessor}
    model_map = {"AutoConfig": AntifakePromptConfig, "AutoModel": AntifakePromptForDeepfakeDetection}
    _add_fields(
        target / CONFIG_NAME,
        auto_map=add_code(target, model_map),
        custom_pipelines=_pipeline_entry(target),
    )
    _add_fields(target / PROCESSOR_NAME, auto_map=add_code(target, processor_map))
    return _describe(AntifakePromptForDeepfakeDetection, config, _count(words), base=base)


def _assemble_peft(source: Path, target: Path, base: Base | None) -> Assembled:
    """Write adapter weights and config, with a Hub id as the base; code and processor come from the base."""
    fields = read_json_object(source / ADAPTER_CONFIG_NAME)
    named = fields.get("base_model_name_or_path")
    base = base or _named_base(named, fields.get("revision"), source)
    weights = _read_weights(source / ADAPTER_SAFE_WEIGHTS_NAME)
    below = named if named and Path(named).is_dir() else base.id
    config = open_checkpoint(below).load_config()
    with torch.device("meta"):  # abilities of the class; weights are not read
        model_class = type(AutoModel.from_config(config, trust_remote_code=False))
    _copy_present(source, target, (ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME))
    _add_fields(target / ADAPTER_CONFIG_NAME, base_model_name_or_path=base.id, revision=base.revision)
    return _describe(model_class, config, _count(weights), library="peft", base=base)


def _named_base(name: str | None, revision: str | None, source: Path) -> Base:
    remedy = "Pass the Hub id of the published base in `base`, as owner/name."
    if not name:
        raise ValueError(f"The config of the adapter {source} has no base_model_name_or_path. {remedy}")
    # Also if the folder no longer exists: others cannot find it either.
    if Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ValueError(f"The base of the adapter {source} is the local folder {name}. {remedy}")
    return Base(name, revision)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ValueError(
            f"{path.parent} does not contain {path.name}. Pickled weights are never published; save the adapter as "
            "safetensors."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _count(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _copy_present(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _add_fields(path: Path, **fields: Any) -> None:
    content = {**read_json_object(path), **fields}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _pipeline_entry(target: Path) -> dict[str, Any]:
    reference = add_code(target, {TASK: DeepfakeDetectionPipeline})[TASK]
    return {TASK: {"impl": reference, "pt": ["AutoModel"]}}


def _describe(model_class: Any, config: Any, parameters: int, **more: Any) -> Assembled:
    return Assembled(
        family=config.model_type,
        class_name=model_class.__name__,
        config=config.to_dict(),
        parameters=parameters,
        explains=model_class.can_explain,
        localizes=model_class.can_localize,
        **more,
    )


def add_code(folder: Path, classes: Mapping[str, Any]) -> dict[str, str]:
    """Copy the files of the classes and the neighbouring files that they import.

    The pipeline's `save_pretrained(remote_code=True)` does this for a loaded model, but adapters are published without
    loading their base.

    Args:
        folder: the folder with config.json.
        classes: Auto class name -> class, from this package or from that of another family.

    Returns:
        The `auto_map` for the config: Auto class name -> `file.Class`.
    """
    auto_map = {}
    for auto_name, cls in classes.items():
        file = Path(str(sys.modules[cls.__module__].__file__))
        for path in (file, *map(Path, get_relative_import_files(str(file)))):
            shutil.copyfile(path, folder / path.name)
        auto_map[auto_name] = f"{file.stem}.{cls.__name__}"
    return auto_map
