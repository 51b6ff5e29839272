"""A small language-model base with random weights, to try a family's recipes on.

    python -m deepfake_detectors.train.mini_base m2f2_det --output outputs/m2f2_base
    python -m deepfake_detectors.train.mini_base fakevlm --output outputs/fakevlm_base \
        --model_config '{"text_config": {"hidden_size": 128}}'

The official trainings start from LLaVA-1.5, Vicuna or InstructBLIP. Where no pretrained weights can be had, this
stands in for them: the same classes, the same files and the same prompts at a size that runs on a processor, with a
tokenizer trained on the questions and answers of the data set's training split. Such a base can write nothing before
it is trained; it proves that a recipe runs, not that it is good.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoProcessor, set_seed
from trl import TrlParser

from deepfake_detectors.modeling.configuration_antifakeprompt import PROMPTS, AntifakePromptConfig
from deepfake_detectors.modeling.configuration_fakevlm import FakeVLMConfig
from deepfake_detectors.modeling.configuration_lvlm_dfd import LvlmDfdConfig
from deepfake_detectors.modeling.configuration_m2f2_det import M2F2DetConfig
from deepfake_detectors.modeling.image_processing_antifakeprompt import AntifakePromptImageProcessor
from deepfake_detectors.modeling.image_processing_fakevlm import FakeVLMImageProcessor
from deepfake_detectors.modeling.image_processing_lvlm_dfd import LvlmDfdImageProcessor
from deepfake_detectors.modeling.image_processing_m2f2_det import M2F2DetImageProcessor
from deepfake_detectors.modeling.modeling_antifakeprompt import AntifakePromptForDeepfakeDetection
from deepfake_detectors.modeling.modeling_fakevlm import FakeVLMForDeepfakeDetection
from deepfake_detectors.modeling.modeling_lvlm_dfd_llm import LvlmDfdForConditionalGeneration
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.modeling_m2f2_det_llm import M2F2DetForConditionalGeneration
from deepfake_detectors.modeling.processing_antifakeprompt import (
    EXPLANATION_QUESTION,
    AntifakePromptProcessor,
    add_soft_word,
)
from deepfake_detectors.modeling.processing_fakevlm import FakeVLMProcessor
from deepfake_detectors.modeling.processing_lvlm_dfd import LvlmDfdProcessor
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.modeling.prompting_fakevlm import QUESTION as FAKEVLM_QUESTION
from deepfake_detectors.modeling.prompting_fakevlm import build_prompt
from deepfake_detectors.modeling.prompting_lvlm_dfd import ANSWER_END, OPENING, dialogue_prompt, score_sentence
from deepfake_detectors.modeling.prompting_lvlm_dfd import QUESTION as LVLM_QUESTION
from deepfake_detectors.modeling.prompting_m2f2_det import DEEPFAKE_MARKER, IMAGE_MARKER, inference_prompt
from deepfake_detectors.train.arguments import _mapping as parse_mapping
from deepfake_detectors.train.calibrated_head import fold_calibration
from deepfake_detectors.train.mini_tokenizer import bert_tokenizer, dialogue_texts, llama_tokenizer

__all__ = ["FAMILIES", "MiniBaseArguments", "mini_base", "write_mini_base"]

logger = logging.getLogger("deepfake_detectors.train")

IMAGE_SIZE, PATCH_SIZE = 224, 32  # of DD-VQA's pictures; 49 patches keep the prompts short
VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PICTURE = {
    "size": {"shortest_edge": IMAGE_SIZE},
    "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
}
PROMPT_SHARE = 10  # one copy of a family's prompts per so many texts: every training row will hold them


@dataclass
class MiniBaseArguments:
    """What to build, and on whose words."""

    family: str = field(metadata={"help": "m2f2_det, fakevlm, lvlm_dfd or antifakeprompt."})
    output: str = field(metadata={"help": "Folder to write; must be new or empty."})
    dataset: str = field(default="ddvqa", metadata={"help": "Whose training words the tokenizer learns."})
    dataset_configs: list[str] = field(
        default_factory=lambda: ["c40_explain", "c40_judge"], metadata={"help": "Configs that hold dialogues."}
    )
    data_dir: str | None = field(default=None, metadata={"help": "Raw files; if unset, $DEEPFAKE_DATA/<dataset>."})
    vocabulary: int = field(default=2000, metadata={"help": "Ids of the language model's tokenizer, at most."})
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of the family's config laid over the mini ones; JSON."}
    )
    detector: str | None = field(
        default=None, metadata={"help": "m2f2_det: a trained cosine detector to take tower and detector from."}
    )
    seed: int = field(default=0, metadata={"help": "Of the random weights."})

    def __post_init__(self) -> None:
        self.model_config = parse_mapping("model_config", self.model_config)
        if self.family not in FAMILIES:
            raise ValueError(f"family is {self.family!r}, allowed are {', '.join(FAMILIES)}.")
        if self.detector is not None and self.family != "m2f2_det":
            raise ValueError(f"detector={self.detector!r} is for m2f2_det only, not for {self.family}; leave it out.")


def mini_base(arguments: MiniBaseArguments) -> Path:
    """Train the tokenizer, build the base and return its folder.

    Raises:
        ValueError: for a wrong option, or an output that is not empty.
        FileNotFoundError: for missing data.
    """
    _require_new(Path(arguments.output))
    texts = dialogue_texts(arguments.dataset, arguments.dataset_configs, arguments.data_dir)
    return write_mini_base(arguments, texts)


def write_mini_base(arguments: MiniBaseArguments, texts: Sequence[str]) -> Path:
    """Build a base on the words of `texts` instead of a data set's."""
    output = Path(arguments.output)
    _require_new(output)
    set_seed(arguments.seed)
    model, processor = FAMILIES[arguments.family](texts, arguments)
    model.eval().save_pretrained(output)
    processor.save_pretrained(output)
    logger.info(
        "%s: %s with %d random parameters, %d ids",
        output,
        type(model).__name__,
        sum(weight.numel() for weight in model.parameters()),
        len(processor.tokenizer),
    )
    return output


def _m2f2_det(texts: Sequence[str], arguments: MiniBaseArguments) -> tuple[Any, Any]:
    prompts = [inference_prompt("", style) for style in ("official_cli", "vicuna_v1")]
    markers = [IMAGE_MARKER, DEEPFAKE_MARKER]
    tokenizer = llama_tokenizer(_with_prompts(texts, prompts, markers), arguments.vocabulary, markers)
    tokenizer.pad_token = tokenizer.unk_token  # as LLaVA does with Vicuna's
    detector, fields, image_processor = _m2f2_det_detector(arguments.detector)
    fields = _laid_over({**fields, "text_config": {**LLAMA, "vocab_size": len(tokenizer)}}, arguments.model_config)
    model = M2F2DetForConditionalGeneration(M2F2DetConfig(**fields))
    if detector is not None:
        model.model.vision_tower.load_state_dict(detector.vision_tower.state_dict())
        model.model.detector.load_state_dict(detector.detector.state_dict())
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # Questions are asked as in training: the official evaluation's other form relies on what Vicuna knew before.
    processor = M2F2DetProcessor(
        image_processor, tokenizer, image_seq_length=model.config.num_patches, prompt_style="vicuna_v1"
    )
    return model, processor


def _m2f2_det_detector(folder: str | None) -> tuple[Any, dict[str, Any], Any]:
    """The trained detector (`None`: random weights), the config fields that describe it, and its image processor."""
    if folder is None:
        recipe = files("deepfake_detectors.train").joinpath("recipes/m2f2_det_default.yaml").read_text("utf-8")
        fields = yaml.safe_load(recipe)
        return None, fields["model_config"], M2F2DetImageProcessor(**fields["image_processor"])
    detector = M2F2DetForDeepfakeDetection.from_pretrained(folder)
    # Before the language model learns to read P(fake), not behind its back.
    fold_calibration(detector)
    fields = {name: value for name, value in detector.config.to_dict().items() if name not in ("architectures",)}
    return detector, fields, AutoProcessor.from_pretrained(folder).image_processor


def _fakevlm(texts: Sequence[str], arguments: MiniBaseArguments) -> tuple[Any, Any]:
    prompts = [*(build_prompt(style=style) for style in ("raw", "vicuna_v1")), FAKEVLM_QUESTION]
    prompts += ["This is a real image.", "This is a fake image."]
    tokenizer = llama_tokenizer(_with_prompts(texts, prompts, ["<image>"]), arguments.vocabulary, ["<image>", "<pad>"])
    tokenizer.pad_token = "<pad>"
    fields = {
        "vision_config": {"model_type": "clip_vision_model", **VISION},
        "text_config": {**LLAMA, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id},
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "prompt_style": "hf_chat",  # the form of the newer official training
    }
    model = FakeVLMForDeepfakeDetection(FakeVLMConfig(**_laid_over(fields, arguments.model_config)))
    model.set_verdict_tokens(tokenizer)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = FakeVLMProcessor(
        FakeVLMImageProcessor(**PICTURE),
        tokenizer,
        patch_size=model.config.vision_config.patch_size,
        prompt_style=model.config.prompt_style,
    )
    return model, processor


def _lvlm_dfd(texts: Sequence[str], arguments: MiniBaseArguments) -> tuple[Any, Any]:
    prompts = [OPENING, dialogue_prompt(LVLM_QUESTION), *(score_sentence(50, name) for name in ("deepfake", "KFD"))]
    tokenizer = llama_tokenizer(_with_prompts(texts, [*prompts, ANSWER_END]), arguments.vocabulary)
    tokenizer.pad_token = tokenizer.eos_token
    # An answer ends at the piece behind its line break ("##" in Vicuna's tokenizer).
    end = tokenizer.convert_ids_to_tokens(tokenizer(ANSWER_END, add_special_tokens=False).input_ids)
    stop = tokenizer.convert_tokens_to_ids(end[end.index("<0x0A>") + 1])
    fields = {
        "imagebind_config": {
            "vision_config": VISION,
            "text_config": {
                "vocab_size": 400,  # only letters are ever looked up
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 8,
                "bos_token_id": 398,
                "eos_token_id": 399,
            },
            "projection_dim": 32,
        },
        "text_config": {**LLAMA, "vocab_size": len(tokenizer)},
        "tap_layers": [0, 1, 2],
        "num_ctx_tokens": 4,
        "locator_width": 16,
        "classifier_widths": [8, 16, 32],
        "classifier_hidden_size": 32,
        "prompt_widths": [4, 8, 8, 16, 16, 16],
        "stop_token_id": stop,
    }
    model = LvlmDfdForConditionalGeneration(LvlmDfdConfig(**_laid_over(fields, arguments.model_config)))
    size = model.config.image_size
    image_processor = LvlmDfdImageProcessor(size={"height": size, "width": size})
    return model, LvlmDfdProcessor(image_processor, tokenizer, stop_token_id=model.config.stop_token_id)


def _antifakeprompt(texts: Sequence[str], arguments: MiniBaseArguments) -> tuple[Any, Any]:
    questions = ["Is this photo real?", *(EXPLANATION_QUESTION.format(verdict=word) for word in ("real", "fake"))]
    known = _with_prompts(texts, [*questions, *PROMPTS.values(), "yes", "no"], ["[*]"])
    tokenizer, question_tokenizer = llama_tokenizer(known, arguments.vocabulary), bert_tokenizer(known)
    rows, question_rows = len(tokenizer), len(question_tokenizer)  # the learned words lie behind both tables
    add_soft_word(tokenizer, question_tokenizer)
    queries = arguments.model_config.get("num_query_tokens", 8)
    processor = AntifakePromptProcessor(
        AntifakePromptImageProcessor(), tokenizer, question_tokenizer, num_query_tokens=queries
    )
    fields = {
        "vision_config": VISION,
        "qformer_config": {
            "vocab_size": question_rows,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "encoder_hidden_size": VISION["hidden_size"],
        },
        "text_config": {**LLAMA, "vocab_size": rows},
        "num_query_tokens": queries,
        **processor.prompt_fields(),
    }
    return (
        AntifakePromptForDeepfakeDetection(AntifakePromptConfig(**_laid_over(fields, arguments.model_config))),
        processor,
    )


FAMILIES: dict[str, Callable[[Sequence[str], MiniBaseArguments], tuple[Any, Any]]] = {
    "m2f2_det": _m2f2_det,
    "fakevlm": _fakevlm,
    "lvlm_dfd": _lvlm_dfd,
    "antifakeprompt": _antifakeprompt,
}


def _with_prompts(texts: Sequence[str], prompts: Sequence[str], markers: Sequence[str] = ()) -> list[str]:
    """The texts, and the prompts about as often as training will show them; placeholders are no words to learn."""
    for marker in markers:
        prompts = [prompt.replace(marker, "") for prompt in prompts]
    return [*texts, *list(prompts) * (1 + len(texts) // PROMPT_SHARE)]


def _laid_over(fields: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `fields`, field by field in sub-configs too."""
    both = dict(fields)
    for name, value in own.items():
        below = both.get(name)
        both[name] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


def _require_new(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists and is not an empty folder; choose another --output or remove it.")


def main(arguments: list[str] | None = None) -> None:
    """Command line entry: the family first, then options; `--config FILE.yaml` holds options too."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("deepfake_detectors").setLevel(logging.INFO)
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and not given[0].startswith("-"):
        given = ["--family", *given]
    (parsed,) = TrlParser((MiniBaseArguments,)).parse_args_and_config(given)
    mini_base(parsed)


if __name__ == "__main__":
    main()
