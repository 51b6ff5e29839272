"""Create the starting point of stage 2: the detector of stage 1 and a pretrained language model in one folder.

    python -m deepfake_detectors.train.stage2_base --detector outputs/m2f2_det_stage1_cosine \
        --language_model llava-hf/llava-1.5-7b-hf --output m2f2-stage1
    python -m deepfake_detectors.train.stage2_base --detector outputs/lvlm_dfd_stage1 \
        --language_model lmsys/vicuna-7b-v1.5-16k --output lvlm-dfd-stage1

Parts that neither provides are random and trained in stage 2 or 3: M2F2-Det's `deepfake_projector` (and its image
projector, if the language model is not a LLaVA), LVLM-DFD's prompt learner and image projection.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    LlavaForConditionalGeneration,
    set_seed,
)

from deepfake_detectors.modeling.modeling_lvlm_dfd import LvlmDfdForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import LvlmDfdForConditionalGeneration
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_llm import GENERATION_DEFAULTS, M2F2DetForConditionalGeneration
from deepfake_detectors.modeling.processing_lvlm_dfd import LvlmDfdProcessor
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.prompting_m2f2_det import DEEPFAKE_MARKER, IMAGE_MARKER
from deepfake_detectors.module_command import run_command
from deepfake_detectors.outputs import written_whole
from deepfake_detectors.train.mini import laid_over
from deepfake_detectors.train.mini.tokenizers import stop_token

__all__ = ["Stage2BaseArguments", "image_processor_of", "join_m2f2_det", "stage2_base"]

logger = logging.getLogger("deepfake_detectors.train")


@dataclass
class Stage2BaseArguments:
    """Options of the command."""

    detector: str = field(metadata={"help": "Folder of stage 1: an M2F2-Det (cosine) or LVLM-DFD verdict model."})
    language_model: str = field(metadata={"help": "Causal language model; for M2F2-Det also a Llava."})
    output: str = field(metadata={"help": "New folder."})
    seed: int = field(default=0, metadata={"help": "Seed of the random parts."})


def stage2_base(arguments: Stage2BaseArguments) -> Path:
    """Write the combined folder completely or not at all, and return it.

    Raises:
        ValueError: for a detector of another family, a bridge detector, a language model whose projector does not fit
            the detector's tower, or a non-empty output folder.
    """
    model_type = AutoConfig.from_pretrained(arguments.detector, trust_remote_code=False).model_type
    if model_type not in JOINERS:
        raise ValueError(
            f"{arguments.detector} has model_type {model_type!r}; stage 2 with a language model exists only for "
            f"{', '.join(JOINERS)}."
        )
    set_seed(arguments.seed)
    with written_whole(arguments.output) as folder:
        model, processor = JOINERS[model_type](arguments.detector, arguments.language_model)
        tokenizer = processor.tokenizer
        model.generation_config = GenerationConfig(
            **GENERATION_DEFAULTS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model.eval().save_pretrained(folder)
        processor.save_pretrained(folder)
    logger.info("wrote to %s a %s for stage 2", arguments.output, type(model).__name__)
    return Path(arguments.output)


def _join_m2f2_det(detector_folder: str, source: str) -> tuple[Any, Any]:
    detector = M2F2DetForDeepfakeDetection.from_pretrained(detector_folder)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token  # as in LLaVA
    is_llava = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type == "llava"
    if is_llava:
        whole = LlavaForConditionalGeneration.from_pretrained(source)
    else:
        whole = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=False)
    model = join_m2f2_det(detector, whole, tokenizer)
    if is_llava:
        projector = whole.model.multi_modal_projector
        needed, found = model.config.vision_config.hidden_size, projector.linear_1.in_features
        if needed != found:
            raise ValueError(
                f"The projector of {source} takes features of width {found}, but the tower of {detector_folder} has "
                f"{needed}: they belong to different CLIP models."
            )
        model.model.multi_modal_projector.load_state_dict(projector.state_dict())
    return model, M2F2DetProcessor(
        image_processor_of(detector_folder), tokenizer, image_seq_length=model.config.num_patches
    )


def join_m2f2_det(
    detector: M2F2DetForDeepfakeDetection, language: Any, tokenizer: Any, config: Mapping[str, Any] | None = None
) -> M2F2DetForConditionalGeneration:
    """Return one model from a detector and a language model; its projectors are random.

    Args:
        detector: provides the tower and the verdict.
        language: a causal language model, or a Llava whose language model is used; its embedding table grows for the
            two placeholders.
        tokenizer: the tokenizer of `language`; gets the two placeholders if it does not have them.
        config: fields of `M2F2DetConfig` that override those of the two.
    """
    tokenizer.add_tokens([IMAGE_MARKER, DEEPFAKE_MARKER], special_tokens=True)
    if len(tokenizer) > language.config.get_text_config().vocab_size:
        language.resize_token_embeddings(len(tokenizer))
    fields = _fields(detector) | {
        "text_config": _language_fields(language.config),
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_MARKER),
        "deepfake_token_id": tokenizer.convert_tokens_to_ids(DEEPFAKE_MARKER),
    }
    model = M2F2DetForConditionalGeneration(type(detector.config)(**laid_over(fields, config or {})))
    model.model.vision_tower.load_state_dict(detector.vision_tower.state_dict())
    model.model.detector.load_state_dict(detector.detector.state_dict())
    model.model.language_model.load_state_dict(getattr(language.model, "language_model", language.model).state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    return model


def _join_lvlm_dfd(detector_folder: str, source: str) -> tuple[Any, Any]:
    detector = LvlmDfdForDeepfakeDetection.from_pretrained(detector_folder)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    tokenizer.pad_token = tokenizer.eos_token  # as in the official code
    language = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=False)
    stop = stop_token(tokenizer)
    fields = _fields(detector) | {"text_config": _language_fields(language.config), "stop_token_id": stop}
    model = LvlmDfdForConditionalGeneration(type(detector.config)(**fields))
    model.detector.load_state_dict(detector.detector.state_dict())
    model.language_model.load_state_dict(language.state_dict())
    return model, LvlmDfdProcessor(image_processor_of(detector_folder), tokenizer, stop_token_id=stop)


def image_processor_of(folder: str) -> Any:
    """Return the image processor of a detector's folder."""
    return AutoProcessor.from_pretrained(folder, trust_remote_code=False).image_processor


def _language_fields(config: Any) -> dict[str, Any]:
    """Return the language model's config as part of a detector's, without fields about its own folder."""
    fields = config.get_text_config().to_dict()
    return {name: value for name, value in fields.items() if name not in ("architectures", "_name_or_path")}


def _fields(detector: Any) -> dict[str, Any]:
    """Return the detector's config without the fields for a missing language model."""
    left_out = ("architectures", "text_config", "transformers_version", "model_type")
    return {name: value for name, value in detector.config.to_dict().items() if name not in left_out}


JOINERS = {"m2f2_det": _join_m2f2_det, "lvlm_dfd": _join_lvlm_dfd}


if __name__ == "__main__":
    run_command(stage2_base, Stage2BaseArguments)
