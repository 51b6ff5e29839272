"""From a family's row in the table to the model that is trained: what the fields `training` and `sft` must hold.

A package of somebody else may bring a family with hooks of its own: a subclass of `ClassifierTraining` named in the
row's `training`, an `SftFamily` named in its `sft`.
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
    """How `train_classifier` treats a family; subclasses override what is different about theirs.

    Args:
        family: row of the family.
    """

    # `model_type` of library models that this training starts from, beside the family's own checkpoints.
    base_model_types: tuple[str, ...] = ()
    trainer_class: type[ClassifierTrainer] = ClassifierTrainer
    # A finished LoRA folder holds both forms, whatever the family.
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
        """Return the verdict model of a checkpoint in float32, and its processor.

        Args:
            source: folder or Hub id.
            config, image_processor: as in `build`, for what starts at random.

        Raises:
            ValueError: for fields that the checkpoint brings itself.
        """
        refuse_fields(source, config, image_processor)
        model = AutoModelForDeepfakeDetection.from_pretrained(source, dtype=torch.float32, trust_remote_code=False)
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        if not isinstance(processor, VerdictProcessor):  # the folder also holds a language model
            processor = VerdictProcessor(processor.image_processor)
        return model, processor

    def freeze(self, model: Any) -> None:
        """Stop gradients of what this family never trains."""
        if hasattr(model, "freeze_unused"):
            model.freeze_unused()

    def collator(self, processor: Any) -> Callable[[list[dict[str, torch.Tensor]]], dict[str, torch.Tensor]] | None:
        """Return what makes batches of the rows of a `PictureDataset`; `None` stacks them."""
        return None


@dataclass(frozen=True)
class SftFamily:
    """How `train_sft` treats a generating family.

    Attributes:
        converse: (question and answer pairs) to what the processor's `encode_conversations` takes.
        verdict_pairs: (row) to the pairs of `conversation="verdict"`.
        takes_classes: whether `forward` makes use of `class_labels`.
        own_loss: whether training must go through the model's `forward`; otherwise TRL's fused head, which is the
            same for stock language models and never holds all logits.
        vision_tower: name of the module that `train_vision=False` freezes; `None` where the model's own property
            `vision_tower` says it.
        detector: name of the module that gives the verdict, where it is one of its own.
        own_verdict_pairs: (config, row) to these pairs, where the checkpoint says what is asked.
    """

    converse: Callable[[Pairs], list[Any]]
    verdict_pairs: Callable[[Mapping[str, Any]], Pairs]
    takes_classes: bool
    own_loss: bool
    vision_tower: str | None
    detector: str | None
    own_verdict_pairs: Callable[[Any, Mapping[str, Any]], Pairs] | None = None

    def asked_by(self, model: Any) -> SftFamily:
        """Return how this very model is treated: its question, where it has one of its own, and its vision tower."""
        family = self
        if self.own_verdict_pairs is not None:
            family = replace(family, verdict_pairs=partial(self.own_verdict_pairs, model.config))
        if self.vision_tower is None:
            family = replace(family, vision_tower=model.vision_tower)
        return family


def require_hooks(family: Family | None, role: str, what: str) -> Any:
    """Return what the field `role` of a family's row names.

    Args:
        family: the row; `None` for a family that is not in the table.
        role: `"training"`, `"sft"` or `"mini"`.
        what: what was asked for, for the message.

    Raises:
        ValueError: if there is no such row or field; it names the families that have one.
    """
    if family is not None and getattr(family, role) is not None:
        return family.load(role)
    known = ", ".join(name for name, row in FAMILIES.items() if getattr(row, role))
    remedy = ""
    if role == "training" and family is not None and family.sft is not None:
        remedy = " It learns from texts: use deepfake_detectors.train.train_sft."
    if role == "sft" and family is not None and family.training is not None:
        remedy = " Use deepfake_detectors.train.train_classifier."
    raise ValueError(f"{what} has no `{role}` in the table of families; those that have one are {known}.{remedy}")


def build_model(arguments: ModelArguments) -> tuple[Any, Any, ClassifierTraining]:
    """Return the verdict model, with random weights or from a checkpoint, its processor, and its family's hooks.

    What is trained is float32, whatever a checkpoint was saved in; the frozen InstructBLIP below AntifakePrompt's
    words keeps its precision. Mixed precision is a matter of `bf16` and `fp16` of the training arguments.

    Raises:
        ValueError: for an unknown family, a config field out of range, or fields that do not go together.
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
    """Raise a `ValueError` for fields beside a checkpoint that brings its own."""
    given = [name for name, fields in (("model_config", config), ("image_processor", image_processor)) if fields]
    if given:
        raise ValueError(
            f"{' and '.join(given)} cannot be set with model_name_or_path {source}: the checkpoint brings its own."
        )


def load_for_sft(arguments: SftModelArguments) -> tuple[Any, Any, SftFamily]:
    """Return model, processor and hooks of a base folder.

    Raises:
        ValueError: for a folder of a family that writes no text, or without a language model; and as
            `four_bit_language_model`.
    """
    source = arguments.model_name_or_path
    options: dict[str, Any] = {"revision": arguments.model_revision}
    quantization = four_bit_language_model(arguments)
    check_model_folder(source)
    fields = PreTrainedConfig.get_config_dict(source, **options)[0]
    model_type = fields.get(FAMILY_FIELD, fields.get("model_type"))
    family = FAMILIES.get(model_type)
    if family is None:  # a stock folder, such as the Llava from which FakeVLM's training starts
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
    # A library class also names layers that this model does not have, and FSDP2 refuses such a name.
    present = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = sorted(present.intersection(model._no_split_modules or ()))
    if hasattr(model.config, "trained"):  # what is saved from here on was
        model.config.trained = True
    return model, processor, hooks.asked_by(model)


def four_bit_language_model(arguments: SftModelArguments) -> BitsAndBytesConfig | None:
    """Return how the base is loaded for QLoRA: the language model's layers in 4 bits, all else as it is; or `None`.

    Raises:
        ValueError: for 8 bits, 4 bits without LoRA, or where bitsandbytes is not installed.
    """
    if arguments.load_in_8bit:
        raise ValueError("load_in_8bit was never tried with these models; use load_in_4bit, or neither.")
    if not arguments.load_in_4bit:
        return None
    if not arguments.use_peft:
        raise ValueError("load_in_4bit needs use_peft: weights in 4 bits cannot be trained, adapters on them can.")
    if find_spec("bitsandbytes") is None:
        raise ValueError(
            "load_in_4bit needs bitsandbytes, which is not installed: pip install bitsandbytes, or train with "
            "load_in_4bit: false (LoRA on the base as it is)."
        )
    config = get_quantization_config(arguments)
    # By part: the tower, the projector and the head lose too much.
    config.llm_int8_skip_modules = ["vision_tower", "multi_modal_projector", "lm_head"]
    return config


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
        batches: `pixel_values` of training images.

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
