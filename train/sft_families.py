"""What fine-tuning must know of a family: its classes, how it puts a row into words, and which part of it rests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedConfig

from deepfake_detectors.dataset_scripts.common import CLASS_NAMES
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import LvlmDfdForConditionalGeneration
from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from deepfake_detectors.modeling.processing_fakevlm import FakeVLMProcessor
from deepfake_detectors.modeling.processing_lvlm_dfd import QUESTION as LVLM_DFD_QUESTION
from deepfake_detectors.modeling.processing_lvlm_dfd import LvlmDfdProcessor
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.prompting_fakevlm import IMAGE_MARKER
from deepfake_detectors.modeling.prompting_fakevlm import QUESTION as FAKEVLM_QUESTION
from deepfake_detectors.modeling.prompting_m2f2_det import DEEPFAKE_MARKER, TRAINING_JUDGEMENT_QUESTION
from deepfake_detectors.train.sft_arguments import SftModelArguments

__all__ = ["SFT_FAMILIES", "SftFamily", "load_for_sft"]

# DD-VQA's judgement rows.
M2F2_DET_VERDICTS = ("The image looks real.", "The image looks fake.")
# Of the released answers.
FAKEVLM_VERDICTS = ("This is a real image.", "This is a fake image.")
# No instruction texts of LVLM-DFD are published: ours, around the words that its evaluation looks for.
LVLM_DFD_VERDICTS = (
    "No, this is not a deepfake image, it is a pristine image.",
    "Yes, this is a deepfake image.",
)

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class SftFamily:
    """One generating family.

    Attributes:
        model_class, processor_class: what a base folder is loaded with.
        converse: (question and answer pairs) to what the processor's `encode_conversations` takes.
        verdict_pairs: (row) to the pairs of `conversation="verdict"`.
        takes_classes: whether `forward` makes use of `class_labels`.
        own_loss: whether training must go through the model's `forward`; otherwise TRL's fused head, which is the
            same for stock language models and never holds all logits.
        vision_tower: name of the module that `train_vision=False` freezes.
        detector: name of the module that gives the verdict, where it is one of its own.
    """

    model_class: Any
    processor_class: Any
    converse: Callable[[Pairs], list[Any]]
    verdict_pairs: Callable[[Mapping[str, Any]], Pairs]
    takes_classes: bool
    own_loss: bool
    vision_tower: str
    detector: str | None


def _turns(marker: str, pairs: Pairs) -> list[Any]:
    """Turns with what stands for the picture in front of the first question."""
    turns = []
    for index, (question, answer) in enumerate(pairs):
        turns.append({"role": "user", "content": question if index else f"{marker}{question}"})
        turns.append({"role": "assistant", "content": answer})
    return turns


def _one_turn(question: str, verdicts: tuple[str, str], row: Mapping[str, Any]) -> Pairs:
    """The family's question, its verdict sentence, and the row's own answer behind it."""
    return [(question, " ".join(filter(None, [verdicts[row["label"]], row.get("answer")])))]


def _lvlm_dfd_pairs(row: Mapping[str, Any]) -> Pairs:
    """The verdict as first turn; the row's own question, if any, as second."""
    first = (LVLM_DFD_QUESTION, LVLM_DFD_VERDICTS[row["label"]])
    return [first, (row["question"], row["answer"])] if row.get("question") else [first]


SFT_FAMILIES = {
    "m2f2_det": SftFamily(
        model_class=M2F2DetForConditionalGeneration,
        processor_class=M2F2DetProcessor,
        converse=partial(_turns, f"{IMAGE_MARKER}\n{DEEPFAKE_MARKER}\n"),
        verdict_pairs=partial(_one_turn, TRAINING_JUDGEMENT_QUESTION, M2F2_DET_VERDICTS),
        takes_classes=True,  # for `conditional_deepfake_prob`
        own_loss=True,  # the two placeholders' rows of lm_head are masked in `forward` only
        vision_tower="model.vision_tower",
        detector="model.detector",
    ),
    "fakevlm": SftFamily(
        model_class=FakeVLMForDeepfakeDetection,
        processor_class=FakeVLMProcessor,
        converse=partial(_turns, IMAGE_MARKER),
        verdict_pairs=partial(_one_turn, FAKEVLM_QUESTION, FAKEVLM_VERDICTS),
        takes_classes=False,
        own_loss=False,
        vision_tower="model.vision_tower",
        detector=None,
    ),
    "lvlm_dfd": SftFamily(
        model_class=LvlmDfdForConditionalGeneration,
        processor_class=LvlmDfdProcessor,
        converse=list,
        verdict_pairs=_lvlm_dfd_pairs,
        takes_classes=False,  # losses of a detector that is frozen
        own_loss=True,  # its prompt is longer than input_ids
        vision_tower="detector.imagebind.vision_model",
        detector="detector",
    ),
}
# A stock Llava folder, from which FakeVLM's training starts.
ALIASES = {"llava": "fakevlm"}


def load_for_sft(arguments: SftModelArguments) -> tuple[Any, Any, SftFamily]:
    """Model, processor and family of a base folder.

    Raises:
        ValueError: for a folder of a family that writes no text, or without a language model.
    """
    source = arguments.model_name_or_path
    options = {"revision": arguments.model_revision}
    model_type = PreTrainedConfig.get_config_dict(source, **options)[0].get("model_type")
    family = SFT_FAMILIES.get(ALIASES.get(model_type, model_type))
    if family is None:
        raise ValueError(
            f"{source} is of model_type {model_type!r}; supervised fine-tuning knows "
            f"{', '.join([*SFT_FAMILIES, *ALIASES])}. Train other detectors with train_classifier."
        )
    dtype = arguments.dtype if arguments.dtype in (None, "auto") else getattr(torch, arguments.dtype)
    if arguments.attn_implementation is not None:
        options["attn_implementation"] = arguments.attn_implementation
    model = family.model_class.from_pretrained(source, dtype=dtype, **options)
    processor = family.processor_class.from_pretrained(source, revision=arguments.model_revision)
    if list(model.config.id2label.values()) != CLASS_NAMES:
        raise ValueError(f"{source} orders its classes {model.config.id2label}, expected {CLASS_NAMES}.")
    # A library class also names layers that this model has none of, and FSDP2 refuses such a name.
    present = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = sorted(present.intersection(model._no_split_modules or ()))
    return model, processor, family
