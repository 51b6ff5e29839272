"""Training hooks of the families: the fields `training` and `sft` of the table, and loading the model to train.

Other packages can add families with their own hooks: a subclass of `ClassifierTraining` in the row's `training`, an
`SftFamily` in its `sft`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoProcessor, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from trl import get_quantization_config

from deepfake_detectors.dataset_scripts._builder import CLASS_NAMES
from deepfake_detectors.families import FAMILIES, Family
from deepfake_detectors.model_folders import check_model_folder, model_faults
from deepfake_detectors.modeling.configuration_chat_vlm import FAMILY_FIELD, is_chat_model
from deepfake_detectors.modeling.detection import VerdictProcessor
from deepfake_detectors.registration import AutoModelForDeepfakeDetection
from deepfake_detectors.train.arguments import ModelArguments, SftModelArguments
from deepfake_detectors.train.trainers import ClassifierTrainer, LoraTrainer

__all__ = [
    "ClassifierTraining",
    "SftFamily",
    "build_model",
    "fit_standardization",
    "four_bit_language_model",
    "load_for_sft",
    "load_pretrained_parts",
    "refuse_fields",
    "require_hooks",
]

Pairs = list[tuple[str, str]]


class ClassifierTraining:
    """Hooks of `train_classifier` for a family; subclasses override them.

    Args:
        family: the family's row in the table.
    """

    # `model_type` of library models that can be trained, in addition to the family's own checkpoints.
    base_model_types: tuple[str, ...] = ()
    trainer_class: type[ClassifierTrainer] = ClassifierTrainer
    # A finished LoRA folder contains both forms for every family.
    lora_trainer_class: type[LoraTrainer] = LoraTrainer

    def __init__(self, family: Family) -> None:
        self.family = family

    def build(self, config: Mapping[str, Any], image_processor: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return a verdict model with random weights and its processor.

        Args:
            config: fields of the family's config.
            image_processor: fields of its image processor.
        """
        model = AutoModelForDeepfakeDetection.from_config(
            AutoConfig.for_model(self.family.name, **config), trust_remote_code=False
        )
        return model, VerdictProcessor(self.family.load("image_processor")(**image_processor))

    def load(self, source: str, config: Mapping[str, Any], image_processor: Mapping[str, Any]) -> tuple[Any, Any]:
        """Load the verdict model of a checkpoint in float32, and its processor.

        Args:
            source: folder or Hub id.
            config, image_processor: as in `build`, for newly initialised parts.

        Raises:
            ValueError: for fields that are fixed by the checkpoint.
        """
        refuse_fields(source, config, image_processor)
        model = AutoModelForDeepfakeDetection.from_pretrained(source, dtype=torch.float32, trust_remote_code=False)
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        if not isinstance(processor, VerdictProcessor):  # the folder also has a language model
            processor = VerdictProcessor(processor.image_processor)
        return model, processor

    def freeze(self, model: Any) -> None:
        """Freeze the parts that this family never trains."""
        if hasattr(model, "freeze_unused"):
            model.freeze_unused()

    def collator(self, processor: Any) -> Callable[[list[dict[str, torch.Tensor]]], dict[str, torch.Tensor]] | None:
        """Return the collator for rows of a `PictureDataset`; `None` stacks them."""
        return None


@dataclass(frozen=True)
class SftFamily:
    """Hooks of `train_sft` for a generating family.

    Attributes:
        converse: converts (question, answer) pairs to the input of the processor's `encode_conversations`.
        verdict_pairs: converts a row to the pairs for `conversation="verdict"`.
        takes_classes: whether `forward` uses `class_labels`.
        own_loss: whether training must call the model's `forward`; otherwise TRL's fused head is used, which is
            equivalent for stock language models and never stores all logits.
        vision_tower: name of the module that `train_vision=False` freezes; `None` to use the model's property
            `vision_tower`.
        detector: name of the module that gives the verdict, if it is separate.
        own_verdict_pairs: converts (config, row) to these pairs, if the question depends on the checkpoint.
    """

    converse: Callable[[Pairs], list[Any]]
    verdict_pairs: Callable[[Mapping[str, Any]], Pairs]
    takes_classes: bool
    own_loss: bool
    vision_tower: str | None
    detector: str | None
    own_verdict_pairs: Callable[[Any, Mapping[str, Any]], Pairs] | None = None

    def asked_by(self, model: Any) -> SftFamily:
        """Return the hooks for this model, with its own question, if any, and its vision tower."""
        family = self
        if self.own_verdict_pairs is not None:
            family = replace(family, verdict_pairs=partial(self.own_verdict_pairs, model.config))
        if self.vision_tower is None:
            family = replace(family, vision_tower=model.vision_tower)
        return family


def require_hooks(family: Family | None, role: str, what: str) -> Any:
    """Return the object named by the field `role` of a family's row.

    Args:
        family: the row; `None` for a family that is not in the table.
        role: `"training"`, `"sft"` or `"mini"`.
        what: the requested thing, for the message.

    Raises:
        ValueError: if the row or field does not exist; the message lists the families that have it.
    """
    if family is not None and getattr(family, role) is not None:
        return family.load(role)
    known = ", ".join(name for name, row in FAMILIES.items() if getattr(row, role))
    remedy = ""
    if role == "training" and family is not None and family.sft is not None:
        remedy = " It is trained on texts: use deepfake_detectors.train.train_sft."
    if role == "sft" and family is not None and family.training is not None:
        remedy = " Use deepfake_detectors.train.train_classifier."
    raise ValueError(f"{what} has no `{role}` in the table of families; families with one are {known}.{remedy}")


def build_model(arguments: ModelArguments) -> tuple[Any, Any, ClassifierTraining]:
    """Return the verdict model, with random weights or from a checkpoint, its processor, and its family's hooks.

    Trained weights are float32, regardless of the saved precision; the frozen InstructBLIP under AntifakePrompt's
    words keeps its own. Use the training arguments `bf16` and `fp16` for mixed precision.

    Raises:
        ValueError: for an unknown family, a config field out of range, or fields that contradict each other.
    """
    source = arguments.model_name_or_path
    if source is not None:
        check_model_folder(source)
        with model_faults(source):
            model_type = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
            training = _training(model_type, f"model_name_or_path {source} (model_type {model_type!r})")
            model, processor = training.load(source, arguments.model_config, arguments.image_processor)
    else:
        training = _training(arguments.model_type, f"model_type {arguments.model_type!r}")
        model, processor = training.build(arguments.model_config, arguments.image_processor)
    load_pretrained_parts(model, arguments.pretrained_parts)
    return model, processor, training


def _training(model_type: str | None, what: str) -> ClassifierTraining:
    family = FAMILIES.get(model_type)
    if family is None:
        for row in FAMILIES.values():
            if row.training is not None and model_type in row.load("training").base_model_types:
                family = row
    return require_hooks(family, "training", what)(family)


def refuse_fields(source: str, config: Mapping[str, Any], image_processor: Mapping[str, Any]) -> None:
    """Raise a `ValueError` for fields that are fixed by the checkpoint."""
    given = [name for name, fields in (("model_config", config), ("image_processor", image_processor)) if fields]
    if given:
        raise ValueError(
            f"{' and '.join(given)} cannot be set with model_name_or_path {source}: the checkpoint has its own."
        )


def load_for_sft(arguments: SftModelArguments) -> tuple[Any, Any, SftFamily]:
    """Load model, processor and hooks of a base folder.

    Raises:
        ValueError: for a folder of a family that cannot write text, or without a language model; and as for
            `four_bit_language_model`.
    """
    source = arguments.model_name_or_path
    options: dict[str, Any] = {"revision": arguments.model_revision}
    quantization = four_bit_language_model(arguments)
    check_model_folder(source)
    fields = PreTrainedConfig.get_config_dict(source, **options)[0]
    model_type = fields.get(FAMILY_FIELD, fields.get("model_type"))
    family = FAMILIES.get(model_type)
    if family is None:  # a stock folder, such as the Llava that FakeVLM's training starts from
        stock = [row for row in FAMILIES.values() if row.sft and row.stock_model_type == model_type]
        stock += [row for row in FAMILIES.values() if row.sft and row.any_chat_model and is_chat_model(model_type)]
        family = next(iter(stock), None)
    hooks = require_hooks(family, "sft", f"{source} (model_type {model_type!r})")
    dtype = arguments.dtype if arguments.dtype in (None, "auto") else getattr(torch, arguments.dtype)
    if quantization is not None:
        options["quantization_config"] = quantization
    if arguments.attn_implementation is not None:
        options["attn_implementation"] = arguments.attn_implementation
    with model_faults(source):
        model = family.load("generation").from_pretrained(source, dtype=dtype, trust_remote_code=False, **options)
        processor = family.load("processor").from_pretrained(
            source, revision=arguments.model_revision, trust_remote_code=False
        )
    if list(model.config.id2label.values()) != CLASS_NAMES:
        raise ValueError(f"{source} orders its classes {model.config.id2label}, expected {CLASS_NAMES}.")
    # A library class also lists layers that this model does not have, which FSDP2 refuses.
    present = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = sorted(present.intersection(model._no_split_modules or ()))
    if hasattr(model.config, "trained"):  # everything saved from here on is trained
        model.config.trained = True
    return model, processor, hooks.asked_by(model)


def four_bit_language_model(arguments: SftModelArguments) -> BitsAndBytesConfig | None:
    """Return the quantization for QLoRA, with only the language model's layers in 4 bits; or `None`.

    Raises:
        ValueError: for 8 bits, for 4 bits without LoRA, or if bitsandbytes is not installed.
    """
    if arguments.load_in_8bit:
        raise ValueError("load_in_8bit is untested with these models; use load_in_4bit, or neither.")
    if not arguments.load_in_4bit:
        return None
    if not arguments.use_peft:
        raise ValueError("load_in_4bit needs use_peft: 4-bit weights cannot be trained, only adapters on top of them.")
    if find_spec("bitsandbytes") is None:
        raise ValueError(
            "load_in_4bit needs bitsandbytes, which is not installed: pip install bitsandbytes, or train with "
            "load_in_4bit: false (LoRA on the base as it is)."
        )
    config = get_quantization_config(arguments)
    # Only this part, because tower, projector and head would lose too much precision.
    config.llm_int8_skip_modules = ["vision_tower", "multi_modal_projector", "lm_head"]
    return config


def load_pretrained_parts(model: nn.Module, parts: dict[str, str]) -> None:
    """Replace the weights of submodules by pretrained ones, which must be complete and fit.

    Args:
        model: with random weights.
        parts: module name -> source of its weights: a folder or Hub id for a transformers model, or the name of a
            pretrained timm network.

    Raises:
        ValueError: for an unknown module, another kind of module, or weights that do not fit.
    """
    for name, source in parts.items():
        try:
            part = model.get_submodule(name)
        except AttributeError as error:
            known = ", ".join(
                child for child, module in model.named_modules() if child and isinstance(module, PreTrainedModel)
            )
            raise ValueError(f"pretrained_parts contains {name!r}; the parts of this model are {known}.") from error
        if isinstance(part, PreTrainedModel):
            weights = type(part).from_pretrained(source, dtype=torch.float32).state_dict()
        elif hasattr(part, "pretrained_cfg"):
            import timm

            weights = timm.create_model(source, pretrained=True, num_classes=0).state_dict()
        else:
            raise ValueError(
                f"pretrained_parts contains {name!r}, which is a {type(part).__name__}; only transformers models and "
                "timm networks have pretrained weights."
            )
        try:
            part.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"The weights of {source} do not fit {name}: {error}") from error


def fit_standardization(model: nn.Module, batches: Iterable[torch.Tensor]) -> bool:
    """Let parts of a model that standardise their input measure the statistics of the training data.

    Args:
        model: any model; parts with a method `fit_standardization` are used.
        batches: `pixel_values` of training images.

    Returns:
        Whether there is such a part; otherwise `batches` is not read.
    """
    parts = [module for module in model.modules() if module is not model and hasattr(module, "fit_standardization")]
    if len(parts) > 1:
        raise ValueError(
            f"{type(model).__name__} has {len(parts)} parts that measure their input, expected at most one."
        )
    for part in parts:
        part.fit_standardization(batches)
    return bool(parts)
