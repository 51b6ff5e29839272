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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import set_seed

from deepfake_detectors.train.arguments import parse_mapping, read_recipe
from deepfake_detectors.train.mini_families import FAMILIES
from deepfake_detectors.train.mini_tokenizer import dialogue_texts

__all__ = ["FAMILIES", "MiniBaseArguments", "mini_base", "write_mini_base"]

logger = logging.getLogger("deepfake_detectors.train")


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
    language_model: str | None = field(
        default=None, metadata={"help": "m2f2_det: a causal language model to take, tokenizer included."}
    )
    seed: int = field(default=0, metadata={"help": "Of the random weights."})

    def __post_init__(self) -> None:
        self.model_config = parse_mapping("model_config", self.model_config)
        if self.family not in FAMILIES:
            raise ValueError(f"family is {self.family!r}, allowed are {', '.join(FAMILIES)}.")
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
    """Build a base on the words of `texts` instead of a data set's."""
    output = Path(arguments.output)
    _require_new(output)
    set_seed(arguments.seed)
    model, processor = FAMILIES[arguments.family](texts, arguments)
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
    (parsed,) = read_recipe((MiniBaseArguments,), given)
    mini_base(parsed)


if __name__ == "__main__":
    main()
