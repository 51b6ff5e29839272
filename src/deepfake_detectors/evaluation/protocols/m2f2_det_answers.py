"""Ask M2F2-Det about the DD-VQA test images and write its answers in the format of the published prediction files.

    python -m deepfake_detectors.evaluation.protocols.m2f2_det_answers --model FOLDER --task judgement \
        --output DDVQA_det_c40.jsonl
    python -m deepfake_detectors.evaluation.protocols.m2f2_det_answers --model FOLDER --task explanation \
        --output DDVQA_exp_c40.jsonl

The published scorers can read these files directly.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoProcessor

from deepfake_detectors.data.loading import load_split
from deepfake_detectors.modeling.detection import require_ability
from deepfake_detectors.modeling.modeling_m2f2_det_llm import GENERATION_DEFAULTS
from deepfake_detectors.module_command import run_command
from deepfake_detectors.outputs import lock_beside, opened_whole

__all__ = ["AnswerArguments", "answer_rows", "write_answers"]

logger = logging.getLogger("deepfake_detectors.evaluation")

LOG_EVERY = 50  # answers
# task -> config of the DD-VQA builder
CONFIGS = {"judgement": "c40", "explanation": "c40_explain"}


@dataclass
class AnswerArguments:
    """Options of the command."""

    model: str = field(metadata={"help": "Folder or Hub id of an M2F2-Det with language model."})
    output: str = field(metadata={"help": "JSON Lines file to write; must not exist."})
    task: str = field(default="judgement", metadata={"help": "judgement or explanation."})
    data_dir: str | None = field(default=None, metadata={"help": "Raw DD-VQA; default: $DEEPFAKE_DATA/ddvqa."})
    max_new_tokens: int = field(default=512, metadata={"help": "Limit of an answer; official: 512."})
    limit: int | None = field(default=None, metadata={"help": "Ask only about this many rows from the start."})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda ..."})
    dtype: str = field(default="auto", metadata={"help": "auto, float32, bfloat16 or float16."})


@torch.no_grad()
def answer_rows(model: Any, processor: Any, rows: Any, task: str, **generation: Any) -> Iterator[dict[str, Any]]:
    """Yield answers in the order of `rows`, each as a line of the published files.

    Args:
        model: `M2F2DetForConditionalGeneration` in eval mode.
        processor: its processor.
        rows: rows of the DD-VQA builder's test split, `id` and `image`, for the explanations also `question`. Rows on
            the same image that follow each other share one prefill.
        task: `"judgement"` or `"explanation"`; both are asked in the processor's `prompt_style`, the official prompts
            unless the checkpoint was trained on others.
        generation: arguments of `generate`.

    Yields:
        `image` (file name), `prompt`, `text` (raw, with `<s>` and `</s>`), `metadata`, and for the explanations `key`.
    """
    if task not in CONFIGS:
        raise ValueError(f"task is {task!r}, allowed are {', '.join(map(repr, CONFIGS))}.")
    for stem, group in groupby(rows, key=lambda row: row["id"].split("/")[3]):
        asked = list(group)
        if task == "judgement":
            prompts = [processor.judgement_prompt()] * len(asked)
        else:
            prompts = [processor.explanation_prompt(row["question"]) for row in asked]
        pixels = processor(images=asked[0]["image"]).to(model.device)
        pixels = {name: value.to(model.dtype) for name, value in pixels.items()}
        answers = model.answer_prompts(processor, prompts, **pixels, skip_special_tokens=False, **generation)
        for row, prompt, text in zip(asked, prompts, answers, strict=True):
            line = {"image": f"{stem}.jpg", "prompt": prompt, "text": text, "metadata": {}}
            yield line if task == "judgement" else {"key": f"{stem}_{row['id'].rsplit('/', 1)[1]}", **line}


def write_answers(arguments: AnswerArguments) -> int:
    """Write one line per row, and return their number. The file only exists once all rows are answered.

    Raises:
        ValueError: for an unknown task, a model without a language model, or an output that exists or is being written
            by another process.
        FileNotFoundError: for missing data.
    """
    output = Path(arguments.output)
    if output.exists():
        raise ValueError(f"{output} exists; choose another `output` or remove it.")
    if arguments.task not in CONFIGS:
        raise ValueError(f"`task` is {arguments.task!r}, allowed are {', '.join(CONFIGS)}.")
    rows = load_split("ddvqa", "test", arguments.data_dir, CONFIGS[arguments.task])
    if arguments.limit is not None:
        rows = rows.select(range(min(arguments.limit, len(rows))))
    model = (
        AutoModel.from_pretrained(arguments.model, dtype=arguments.dtype, trust_remote_code=False)
        .to(arguments.device)
        .eval()
    )
    require_ability(model, "explain")
    processor = AutoProcessor.from_pretrained(arguments.model, trust_remote_code=False)
    generation = {**GENERATION_DEFAULTS, "max_new_tokens": arguments.max_new_tokens}
    output.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with lock_beside(output), opened_whole(output) as file:
        for line in answer_rows(model, processor, rows, arguments.task, **generation):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
            if count % LOG_EVERY == 0:
                logger.info("%d of %d questions were answered", count, len(rows))
    logger.info("wrote %d answers to %s", count, output)
    return count


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    run_command(write_answers, AnswerArguments, arguments)


if __name__ == "__main__":
    main()
