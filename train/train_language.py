"""Train a small Llama and its tokenizer on a dataset's own conversations, from scratch.

    python -m deepfake_detectors.train.train_language --config m2f2_det_default_language

It replaces Vicuna if no pretrained weights are available: M2F2-Det's stages 2 and 3 need a language model that can
already write. It only knows the questions and answers of the training split.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import (
    DataCollatorForLanguageModeling,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.dataset_scripts._builder import CLASS_NAMES
from deepfake_detectors.modeling.prompting_m2f2_det import (
    DEEPFAKE_MARKER,
    IMAGE_MARKER,
    inference_prompt,
    training_prompt,
)
from deepfake_detectors.module_command import show_progress
from deepfake_detectors.outputs import write_text
from deepfake_detectors.train.arguments import (
    SourceArguments,
    check_publishing,
    parse_mapping,
    read_recipe,
    use_new_names,
)
from deepfake_detectors.train.data import set_validation_aside
from deepfake_detectors.train.mini.tokenizers import llama_tokenizer
from deepfake_detectors.train.trainers import WithoutPickle, run_lock

__all__ = ["LanguageArguments", "LanguageTrainingArguments", "conversation_texts", "main", "train_language"]

logger = logging.getLogger("deepfake_detectors.train")

COLUMNS = ["id", "video_id", "group_id", "frame", "label", "question", "answers"]
MAX_TURNS = 3
HINT_SHARE = 0.5  # share of texts that state before the first question what the image will show later
CLI_SHARE = 0.25  # share of texts in the form of the official evaluation; the others have that of training

Turn = tuple[str, str]


def conversation_texts(rows: Sequence[Mapping[str, Any]], passes: int, seed: int) -> Iterator[str]:
    """Return texts of up to three turns about one image each, without image placeholders.

    Half of the texts have "The image is real." (or fake) in place of image and detector, so that the language model
    learns to take its answer from there. Later stages only have to replace that sentence by images.

    Args:
        rows: with `video_id` (shared by rows about one image; `None` if `id` is that of an image), `label` (0 real,
            1 fake), `question` and `answers`.
        passes: number of times that every question is asked, each time in another order and with another answer.
        seed: seed of the order.
    """
    pictures: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        known = pictures[row["video_id"] or row["id"]]
        if all((row["question"], row["answers"]) != (other["question"], other["answers"]) for other in known):
            known.append(row)  # once: DD-VQA repeats its judgements up to 18 times
    generator = np.random.default_rng(seed)
    for _ in range(passes):
        for video in sorted(pictures):
            asked = pictures[video]
            order = generator.permutation(len(asked))
            turns = [(asked[i]["question"], str(generator.choice(asked[i]["answers"]))) for i in order]
            while turns:
                count = int(generator.integers(1, MAX_TURNS + 1))
                hint = f"The image is {CLASS_NAMES[asked[0]['label']]}." if generator.random() < HINT_SHARE else ""
                if generator.random() < CLI_SHARE:
                    yield _evaluation_text(turns[0], hint)
                    turns = turns[1:]
                else:
                    yield _training_text(turns[:count], hint)
                    turns = turns[count:]


def _training_text(turns: Sequence[Turn], hint: str) -> str:
    conversation = []
    for index, (question, answer) in enumerate(turns):
        # The three line breaks after the placeholders in the official training.
        start = f"{hint}\n\n\n" if hint and index == 0 else ""
        conversation += [
            {"role": "user", "content": f"{start}{question}"},
            {"role": "assistant", "content": answer},
        ]
    return training_prompt(conversation)[0]


def _evaluation_text(turn: Turn, hint: str) -> str:
    question, answer = turn
    prompt = inference_prompt(question).replace(f"{IMAGE_MARKER}\n{DEEPFAKE_MARKER}", hint)
    return f"{prompt} {answer}</s>"


@dataclass
class LanguageArguments(SourceArguments):
    """Texts to learn, and size of the model."""

    dataset_configs: list[str] = field(
        default_factory=lambda: ["c40_explain", "c40_judge"], metadata={"help": "Configs with dialogues."}
    )
    passes: int = field(
        default=4, metadata={"help": "Number of times that every question is asked, each time in another order."}
    )
    vocabulary: int = field(default=2000, metadata={"help": "Maximum number of ids of the tokenizer."})
    model_config: dict | str | None = field(default=None, metadata={"help": "Fields of the `LlamaConfig`; JSON."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.model_config = parse_mapping("model_config", self.model_config)
        if self.dataset_config is not None:
            raise ValueError(f"dataset_config is {self.dataset_config!r}; list all configs in dataset_configs.")
        if self.passes < 1:
            raise ValueError(f"passes is {self.passes}, expected 1 or more.")


@dataclass
class LanguageTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the number of threads."""

    hub_strategy: str = field(default="end", metadata={"help": "Must be 'end', so that no pickle is published."})

    cpu_threads: int | None = field(
        default=None, metadata={"help": "PyTorch threads on the CPU. The last digits of sums depend on it."}
    )

    def __post_init__(self) -> None:
        use_new_names(self)
        super().__post_init__()
        check_publishing(self)


class LanguageTrainer(WithoutPickle, Trainer):
    """HF's `Trainer`."""


def train_language(arguments: LanguageArguments, training: LanguageTrainingArguments) -> Path:
    """Train and save model, tokenizer and `validation.json`; return the output folder.

    Raises:
        ValueError: for settings that contradict each other, or rows without dialogues.
        FileNotFoundError: for missing data.
    """
    if training.cpu_threads is not None:
        torch.set_num_threads(training.cpu_threads)
    set_seed(training.seed)
    rows, others = set_validation_aside(_dialogue_rows(arguments), arguments)
    texts = list(conversation_texts(rows.to_list(), arguments.passes, training.seed))
    held_out = list(conversation_texts(others.to_list(), 1, training.seed))
    tokenizer = llama_tokenizer(texts, arguments.vocabulary)
    tokenizer.pad_token = tokenizer.unk_token  # as in LLaVA with Vicuna's tokenizer
    config = LlamaConfig(**arguments.model_config)
    config.vocab_size = len(tokenizer)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    trainer = LanguageTrainer(
        model=LlamaForCausalLM(config),
        args=training,
        train_dataset=_tokenized(tokenizer, texts),
        eval_dataset=_tokenized(tokenizer, held_out),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
    )
    with run_lock(training):
        outcome = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
        measured = trainer.evaluate()
        # Trainer switches it off, which models built on this folder would inherit.
        trainer.model.config.use_cache = True
        trainer.save_model()
        report = {
            "seed": training.seed,
            "steps": trainer.state.global_step,
            "best_step": None,  # the last one is kept
            "train_seconds": outcome.metrics["train_runtime"],
            "cpu_threads": training.cpu_threads,
            "parameters": trainer.model.num_parameters(),
            "train_texts": len(texts),
            "validation_texts": len(held_out),
            "dataset": arguments.dataset,
            "dataset_configs": arguments.dataset_configs,
            "dataset_options": arguments.dataset_options,
            "validation_fraction": arguments.validation_fraction,
            "validation_seed": arguments.validation_seed,
            "metrics": {
                "loss": measured["eval_loss"],
                "perplexity": math.exp(measured["eval_loss"]),
            },
        }
        path = Path(training.output_dir) / "validation.json"
        write_text(path, json.dumps(report, indent=2) + "\n")
    logger.info(
        "%s: perplexity %.2f on %d texts of other videos", path.parent, report["metrics"]["perplexity"], len(held_out)
    )
    return path.parent


def _dialogue_rows(arguments: LanguageArguments) -> datasets.Dataset:
    parts = []
    for name in arguments.dataset_configs:
        rows = load_split(
            arguments.dataset, arguments.train_split, arguments.data_dir, name, arguments.dataset_options
        )
        if "answers" not in rows.column_names:
            raise ValueError(
                f"{arguments.dataset} {name} does not have questions and answers; use configs with dialogues."
            )
        parts.append(rows.select_columns(COLUMNS))
    return datasets.concatenate_datasets(parts)


def _tokenized(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": tokenizer(list(texts)).input_ids})


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    show_progress()
    train_language(*read_recipe((LanguageArguments, LanguageTrainingArguments), arguments))


if __name__ == "__main__":
    main()
