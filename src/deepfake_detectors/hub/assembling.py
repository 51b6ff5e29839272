"""The files of a published checkpoint, whichever form it has: a whole model, learned words, or a PEFT adapter."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoProcessor, LlavaForConditionalGeneration
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, CONFIG_NAME, PROCESSOR_NAME

from deepfake_detectors.evaluation.fitting import CALIBRATION_FILE
from deepfake_detectors.families import FAMILIES, require_family
from deepfake_detectors.hub.code_files import add_code
from deepfake_detectors.modeling.configuration_antifakeprompt import AntifakePromptConfig
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from deepfake_detectors.modeling.modeling_antifakeprompt_adapter import ADAPTER_FILE, save_soft_words
from deepfake_detectors.modeling.pipeline_deepfake_detection import TASK, DeepfakeDetectionPipeline
from deepfake_detectors.modeling.processing_antifakeprompt import AntifakePromptProcessor
from deepfake_detectors.pipelines import check_model_source, pipeline

__all__ = ["LICENSE_FILES", "Assembled", "Base", "assemble"]

logger = logging.getLogger(__name__)

MAX_SHARD = "5GB"  # a whole 7B model in one file is slow to fetch and to resume
LICENSE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
CARRIED = (*LICENSE_FILES, CALIBRATION_FILE)


@dataclass(frozen=True)
class Base:
    """The model below an adapter."""

    id: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Base:
        """`owner/name` or `owner/name@revision`.

        Raises:
            ValueError: for what cannot be a Hub id.
        """
        name, _, revision = text.partition("@")
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ValueError(f"--base {text}: not a Hub id owner/name ({error}).") from error
        return cls(name, revision or None)

    def as_card_entry(self) -> dict[str, Any]:
        return {"id": self.id, "revision": self.revision, "relation": "adapter"}


@dataclass(frozen=True)
class Assembled:
    """What lies in the folder.

    Attributes:
        family, class_name: `model_type` and class that loads it.
        config: its config (of an adapter, that of its base), as a dict.
        parameters: number of weights in the folder.
        explains, localizes: what the class can do.
        library: which library loads an adapter.
        base: the model below an adapter; `None` for a whole model.
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
    """Write what is to be published of `source` into the existing, empty folder `target`.

    Args:
        source: a folder that this package loads.
        target: gets weights, config, processor, code, licence files and the record of a calibration; no card.
        base: instead of the base that an adapter names.

    Raises:
        ValueError, FileNotFoundError: if `source` is no such folder, if its weights are pickled or incomplete, or if
            no Hub id of an adapter's base is known.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"There is no folder {source}; give the checkpoint folder to publish.")
    check_model_source(source)
    if (source / CONFIG_NAME).is_file():
        found = _assemble_words(source, target, base) if _is_words(source) else _assemble_whole(source, target, base)
    else:
        found = _assemble_peft(source, target, base)
    _copy_present(source, target, CARRIED)
    return found


def _assemble_whole(source: Path, target: Path, base: Base | None) -> Assembled:
    if base is not None:
        raise ValueError(f"{source} is a whole model, no adapter: leave out --base.")
    config = AutoConfig.from_pretrained(source)
    require_family(config.model_type, source)
    if not any(source.glob("*.safetensors")):
        raise ValueError(
            f"{source} holds no *.safetensors. Pickled weights are never published: load the folder and save it again "
            "with save_pretrained, or convert the official files with deepfake-detectors convert."
        )
    for nested in sorted(source.glob(f"*/{ADAPTER_CONFIG_NAME}")):
        if not nested.parent.name.startswith(PREFIX_CHECKPOINT_DIR):
            logger.warning(
                "%s holds an adapter, which is not published with the model: put it in with deepfake-detectors merge "
                "--model %s --delta %s --output FOLDER and publish FOLDER, or publish it by itself with --base.",
                nested.parent,
                source,
                nested.parent,
            )
    try:  # not by transformers.pipeline, which buries the cause under tracebacks of its own attempts
        model, processor = AutoModel.from_pretrained(source, dtype="auto"), AutoProcessor.from_pretrained(source)
    except SafetensorError as error:
        raise ValueError(f"The weights of {source} are damaged: {error}") from error
    detector = pipeline(model=model, processor=processor, device="cpu")
    options: dict[str, Any] = {"max_shard_size": MAX_SHARD}
    if isinstance(detector.model, LlavaForConditionalGeneration):
        # The stock class renames the older names of Llava's weights by the config's model_type, which is the family's
        # here: its head would start at random. Today's names need no renaming, and every loader takes them.
        options["save_original_format"] = False
    detector.save_pretrained(target, remote_code=True, **options)
    auto_map = json.loads((target / CONFIG_NAME).read_text(encoding="utf-8"))["auto_map"]
    further = _doors(type(detector.model), config.model_type, auto_map["AutoModel"])
    _add_fields(target / CONFIG_NAME, auto_map={**auto_map, **further})
    return _describe(type(detector.model), detector.model.config, detector.model.num_parameters())


def _doors(model_class: type, model_type: str, own: str) -> dict[str, str]:
    """Return Auto class -> `file.Class` for the stock pipelines that take a folder of this class too.

    A class with the language model is loaded as the verdict class as well, whose file comes along.
    """
    family, found = FAMILIES[model_type], {}
    for door, role in family.doors.items():
        if family.load(role) is model_class:
            found[door] = own
        elif role == "verdict":
            module, _, name = family.verdict.partition(":")
            found[door] = f"{module.rpartition('.')[2]}.{name}"
    return found


def _is_words(source: Path) -> bool:
    return json.loads((source / CONFIG_NAME).read_text(encoding="utf-8")).get("base_model_name_or_path") is not None


def _assemble_words(source: Path, target: Path, base: Base | None) -> Assembled:
    """The words alone; the InstructBLIP below is not needed for it, and stays where it is."""
    config = AntifakePromptConfig.from_pretrained(source)
    base = base or _named_base(config.base_model_name_or_path, None, source)
    words = _read_weights(source / ADAPTER_FILE)
    if not (source / PROCESSOR_NAME).is_file():
        raise ValueError(
            f"{source} holds no {PROCESSOR_NAME}, which has the statistics of the pictures: save the words together "
            "with their processor, save_adapter(folder, processor)."
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
    """Adapter weights and config, whose base becomes a Hub id; code and processor are the base's."""
    fields = json.loads((source / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8"))
    named = fields.get("base_model_name_or_path")
    base = base or _named_base(named, fields.get("revision"), source)
    weights = _read_weights(source / ADAPTER_SAFE_WEIGHTS_NAME)
    below = named if named and Path(named).is_dir() else base.id
    config = AutoConfig.from_pretrained(below)
    require_family(config.model_type, f"The base {below} of {source}")
    with torch.device("meta"):  # what the class can do; no weights are read
        model_class = type(AutoModel.from_config(config))
    _copy_present(source, target, (ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME))
    _add_fields(target / ADAPTER_CONFIG_NAME, base_model_name_or_path=base.id, revision=base.revision)
    return _describe(model_class, config, _count(weights), library="peft", base=base)


def _named_base(name: str | None, revision: str | None, source: Path) -> Base:
    remedy = "Name the published base with --base owner/name."
    if not name:
        raise ValueError(f"The adapter {source} names no base. {remedy}")
    # Also a folder that is gone: nobody else finds it either.
    if Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ValueError(f"The adapter {source} names the local folder {name} as its base. {remedy}")
    return Base(name, revision)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ValueError(
            f"{path.parent} holds no {path.name}. Pickled weights are never published; save the adapter as "
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
    content = {**json.loads(path.read_text(encoding="utf-8")), **fields}
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
