"""Create a small base with a language model and random weights, to try a family's recipes.

    python -m deepfake_detectors.train.mini_base m2f2_det --output outputs/m2f2_base
    python -m deepfake_detectors.train.mini_base fakevlm --output outputs/fakevlm_base \
        --model_config '{"text_config": {"hidden_size": 128}}'

Official training starts from LLaVA-1.5, Vicuna or InstructBLIP. If no pretrained weights are available, this base can
replace them: it has the same classes, files and prompts at a size for a CPU, with a tokenizer trained on the questions
and answers of the dataset's training split. Such a base cannot write before it is trained. It shows that a recipe
runs, not that its result is good.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, set_seed

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.families import FAMILIES
from deepfake_detectors.modeling.configuration_detection import identity_calibration
from deepfake_detectors.modeling.modeling_m2f2_det import M2F2DetForDeepfakeDetection
from deepfake_detectors.modeling.processing_m2f2_det import M2F2DetProcessor
from deepfake_detectors.module_command import show_progress
from deepfake_detectors.train.arguments import parse_mapping, read_recipe
from deepfake_detectors.train.families import require_hooks
from deepfake_detectors.train.mini import MINI, Plan, tiny_model
from deepfake_detectors.train.mini.families import m2f2_det_tokenizer
from deepfake_detectors.train.stage2_base import image_processor_of, join_m2f2_det

__all__ = ["MiniBaseArguments", "dialogue_texts", "main", "mini_base", "write_mini_base"]

logger = logging.getLogger("deepfake_detectors.train")


@dataclass
class MiniBaseArguments:
    """Options of the command."""

    family: str = field(metadata={"help": "Family with a builder for small models, such as m2f2_det."})
    output: str = field(metadata={"help": "Folder to write; must be new or empty."})
    dataset: str = field(default="ddvqa", metadata={"help": "Dataset whose training texts the tokenizer learns."})
    dataset_configs: list[str] = field(
        default_factory=lambda: ["c40_explain", "c40_judge"], metadata={"help": "Configs with dialogues."}
    )
    data_dir: str | None = field(default=None, metadata={"help": "Raw files; default: $DEEPFAKE_DATA/<dataset>."})
    vocabulary: int = field(
        default=2000, metadata={"help": "Maximum number of ids of the language model's tokenizer."}
    )
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of the family's config that override the small defaults; JSON."}
    )
    detector: str | None = field(
        default=None, metadata={"help": "m2f2_det: a trained cosine detector that provides tower and detector."}
    )
    language_model: str | None = field(
        default=None, metadata={"help": "m2f2_det: a causal language model to use, with its tokenizer."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the random weights."})

    def __post_init__(self) -> None:
        self.model_config = parse_mapping("model_config", self.model_config)
        require_hooks(FAMILIES.get(self.family), "mini", f"family {self.family!r}")
        for name in ("detector", "language_model"):
            value = getattr(self, name)
            if value is not None and self.family != "m2f2_det":
                raise ValueError(f"{name}={value!r} is for m2f2_det only, not for {self.family}; leave it out.")


def mini_base(arguments: MiniBaseArguments) -> Path:
    """Train the tokenizer, build the base and return its folder.

    Raises:
        ValueError: for a wrong option, or an output that is not empty.
        FileNotFoundError: for missing data.
    """
    _require_new(Path(arguments.output))
    texts = []
    if arguments.language_model is None:  # which brings a tokenizer
        texts = dialogue_texts(arguments.dataset, arguments.dataset_configs, arguments.data_dir)
    return write_mini_base(arguments, texts)


def write_mini_base(arguments: MiniBaseArguments, texts: Sequence[str]) -> Path:
    """Build a base with a tokenizer for `texts` instead of a dataset."""
    output = Path(arguments.output)
    _require_new(output)
    set_seed(arguments.seed)
    if arguments.detector is None and arguments.language_model is None:
        model, processor = tiny_model(
            arguments.family,
            generates=True,
            size=MINI,
            texts=texts,
            vocabulary=arguments.vocabulary,
            seed=arguments.seed,
            **arguments.model_config,
        )
    else:
        model, processor = _of_trained_parts(arguments, texts)
    model.eval().save_pretrained(output)
    processor.save_pretrained(output)
    logger.info(
        "%s: %s with %d parameters, %d ids",
        output,
        type(model).__name__,
        sum(weight.numel() for weight in model.parameters()),
        len(processor.tokenizer),
    )
    return output


def _of_trained_parts(arguments: MiniBaseArguments, texts: Sequence[str]) -> tuple[Any, Any]:
    """Build an M2F2-Det from a trained detector, a trained language model, or both."""
    if arguments.language_model is not None:
        tokenizer = AutoTokenizer.from_pretrained(arguments.language_model, trust_remote_code=False)
        language = AutoModelForCausalLM.from_pretrained(arguments.language_model, trust_remote_code=False)
    else:
        tokenizer = m2f2_det_tokenizer(Plan(MINI, texts, arguments.vocabulary, True, {}))
        language = LlamaForCausalLM(LlamaConfig(**{**MINI.language, "vocab_size": len(tokenizer)}))
    if arguments.detector is not None:
        detector = M2F2DetForDeepfakeDetection.from_pretrained(arguments.detector)
        image_processor = image_processor_of(arguments.detector)
        # Done before the language model learns to read P(fake).
        fold_calibration(detector)
    else:
        detector, processor = tiny_model("m2f2_det", size=MINI, seed=arguments.seed)
        image_processor = processor.image_processor
    model = join_m2f2_det(detector, language, tokenizer, arguments.model_config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, M2F2DetProcessor(
        image_processor, tokenizer, image_seq_length=model.config.num_patches, prompt_style="vicuna_v1"
    )


@torch.no_grad()
def fold_calibration(model: M2F2DetForDeepfakeDetection) -> None:
    """Merge the calibration into the head, so that `forward` and all stock pipelines return calibrated logits.

    Exact: the calibration is affine in the logit difference, and the head is linear.
    """
    head, calibration = model.detector.classifier, model.config.calibration
    for values, shift in ((head.weight, 0.0), (head.bias, calibration["bias"])):
        real, fake = values.double()
        half = (calibration["scale"] * (fake - real) + shift) / 2
        values.copy_(torch.stack([(real + fake) / 2 - half, (real + fake) / 2 + half]))
    model.config.calibration = identity_calibration()


def dialogue_texts(dataset: str, configs: Sequence[str], data_dir: str | Path | None = None) -> list[str]:
    """Return all questions and answers of the training split, in the order of the rows.

    Args:
        dataset: name of a builder of this package.
        configs: its configs with dialogues.
        data_dir: its raw files; `None` means its folder in `$DEEPFAKE_DATA`.

    Raises:
        ValueError: for an unknown dataset or config, or one without dialogues.
        FileNotFoundError: for missing data.
    """
    texts: list[str] = []
    for config in configs:
        rows = load_split(dataset, "train", data_dir, config)
        if "answers" not in rows.column_names:
            raise ValueError(
                f"{dataset} {config} has images without questions and answers, so there is no text to learn; use "
                "configs with dialogues (for ddvqa: c40_explain, c40_judge)."
            )
        for question, answers in zip(rows["question"], rows["answers"], strict=True):
            texts += [question, *answers]
    return texts


def _require_new(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists and is not an empty folder; choose another `output` or remove it.")


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line: the family first, then options; `--config FILE.yaml` can also contain options."""
    show_progress()
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and not given[0].startswith("-"):
        given = ["--family", *given]
    (parsed,) = read_recipe((MiniBaseArguments,), given)
    mini_base(parsed)


if __name__ == "__main__":
    main()
