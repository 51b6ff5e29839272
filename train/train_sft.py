"""Supervised fine-tuning of detectors with a language model: FakeVLM, M2F2-Det stages 2 and 3, LVLM-DFD stage 2.

    accelerate launch -m deepfake_detectors.train.train_sft \
        --config m2f2_det_stage2 --model_name_or_path m2f2-base --output_dir m2f2-stage2

Every key of the recipe can be overridden after it. Full fine-tuning writes a complete folder; LoRA writes an adapter,
which `deepfake-detectors merge --model BASE --delta ADAPTER --output FOLDER` merges into its base.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from trl import get_peft_config

from deepfake_detectors.module_command import launched_command, show_progress
from deepfake_detectors.outputs import write_text
from deepfake_detectors.train.arguments import SftDataArguments, SftModelArguments, SftTrainingArguments, read_recipe
from deepfake_detectors.train.families import load_for_sft
from deepfake_detectors.train.optimization import freeze_modules, train_only
from deepfake_detectors.train.resuming import checkpoint_to_resume
from deepfake_detectors.train.sft_data import ConversationCollator, load_conversations
from deepfake_detectors.train.trainers import DetectionCallback, DetectorSFTTrainer, run_lock

__all__ = ["build_trainer", "main", "parse_sft_recipe", "train_sft"]

logger = logging.getLogger("deepfake_detectors.train")  # __name__ is "__main__" when launched


def train_sft(
    model_arguments: SftModelArguments, data_arguments: SftDataArguments, arguments: SftTrainingArguments
) -> Path:
    """Train and save; return the output folder.

    Raises:
        ValueError: for settings that contradict each other, a base of another family, or a split with one class.
        FileNotFoundError: for missing data.
    """
    trainer, detection = build_trainer(model_arguments, data_arguments, arguments)
    with run_lock(arguments):
        outcome = trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
        trainer.save_model(_internal_call=True)  # first of all, because the training is done and must not be lost
        metrics = trainer.evaluate()
        report = {
            "command": launched_command(__package__),
            "model_name_or_path": model_arguments.model_name_or_path,
            "seed": arguments.seed,
            "processes": arguments.world_size,
            "steps": trainer.state.max_steps,
            "best_step": trainer.state.best_global_step,
            "train_seconds": outcome.metrics["train_runtime"],
            "train_rows": len(trainer.train_dataset),
            "validation_pictures": len(detection.rows),
            "dataset": data_arguments.dataset,
            "dataset_configs": data_arguments.dataset_configs or [data_arguments.dataset_config],
            "metrics": metrics,
        }
        output = Path(arguments.output_dir)
        if trainer.is_world_process_zero():
            write_text(output / "validation.json", json.dumps(report, indent=2) + "\n")
        if arguments.push_to_hub:
            trainer.push_to_hub()
    return output


def build_trainer(
    model_arguments: SftModelArguments, data_arguments: SftDataArguments, arguments: SftTrainingArguments
) -> tuple[DetectorSFTTrainer, DetectionCallback]:
    """Return the trainer, and the callback that scores the validation images.

    `arguments.resume_from_checkpoint` becomes the folder to resume from, or `None`.
    """
    # The model comes first, so that a wrong recipe fails before any data is read and anything is written.
    if arguments.cpu_threads is not None:
        torch.set_num_threads(arguments.cpu_threads)
    set_seed(arguments.seed)
    model, processor, family = load_for_sft(model_arguments)
    if model_arguments.train_only:
        train_only(model, model_arguments.train_only)
    if not model_arguments.train_vision:
        freeze_modules(model, [family.vision_tower], "train_vision=False")
    arguments.resume_from_checkpoint = checkpoint_to_resume(arguments, model, adapter=model_arguments.use_peft)
    with arguments.main_process_first(desc="building the dataset"):
        rows, held_out = load_conversations(data_arguments, rebuild=arguments.local_process_index == 0)
    logger.info("%d conversations to train on, %d images to validate on", len(rows), len(held_out))
    trainer = DetectorSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out,
        data_collator=ConversationCollator(family, processor, data_arguments.conversation, arguments.max_length),
        processing_class=processor,
        peft_config=_adapter(model_arguments),
        own_loss=family.own_loss,
        detector=family.detector,
    )
    detection = DetectionCallback(trainer, held_out, arguments.per_device_eval_batch_size)
    trainer.add_callback(detection)
    return trainer, detection


def _adapter(arguments: SftModelArguments) -> Any:
    config = get_peft_config(arguments)
    if config is not None:
        # These are not stock language models; without a task, PEFT also records the base class of the adapter.
        config.task_type = None
    return config


def parse_sft_recipe(arguments: list[str] | None = None) -> tuple[Any, ...]:
    """See `read_recipe`."""
    return read_recipe((SftModelArguments, SftDataArguments, SftTrainingArguments), arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    show_progress()
    train_sft(*parse_sft_recipe(arguments))


if __name__ == "__main__":
    main()
