"""Train an image classifier on real and fake images.

    accelerate launch -m deepfake_detectors.train.train_classifier \
        --config m2f2_det_default --output_dir outputs/m2f2_det_default

Every key of the recipe can be overridden after it: `--learning_rate 1e-3`. The best checkpoint by validation AUC is
saved in the output folder, with processor, calibration and `validation.json`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import set_seed

from deepfake_detectors.evaluation.calibration import calibrated_probability, fit_platt
from deepfake_detectors.evaluation.metrics import detection_metrics
from deepfake_detectors.module_command import launched_command, show_progress
from deepfake_detectors.outputs import write_text
from deepfake_detectors.train.arguments import (
    ClassifierTrainingArguments,
    DataArguments,
    ModelArguments,
    parse_recipe,
)
from deepfake_detectors.train.data import (
    PictureDataset,
    load_train_and_validation,
    training_pictures,
    training_sampler,
)
from deepfake_detectors.train.families import build_model, fit_standardization
from deepfake_detectors.train.masks import mask_side
from deepfake_detectors.train.optimization import freeze_modules
from deepfake_detectors.train.resuming import checkpoint_to_resume
from deepfake_detectors.train.trainers import (
    ClassifierTrainer,
    add_lora,
    run_lock,
    validation_metrics,
)

__all__ = ["build_trainer", "main", "train_classifier"]

logger = logging.getLogger("deepfake_detectors.train")  # __name__ is "__main__" when launched

STATISTICS_BATCH = 64


def train_classifier(
    model_arguments: ModelArguments, data_arguments: DataArguments, arguments: ClassifierTrainingArguments
) -> Path:
    """Train, calibrate and save; return the output folder.

    Raises:
        ValueError: for settings that contradict each other, an empty split, or a split with one class.
        FileNotFoundError: for missing data.
    """
    trainer, resume_from = build_trainer(model_arguments, data_arguments, arguments)
    with run_lock(arguments):
        outcome = trainer.train(resume_from_checkpoint=resume_from)
        _finish(trainer, data_arguments, outcome.metrics["train_runtime"])
    return Path(arguments.output_dir)


def build_trainer(
    model_arguments: ModelArguments, data_arguments: DataArguments, arguments: ClassifierTrainingArguments
) -> tuple[ClassifierTrainer, str | None]:
    """Return the trainer, and the checkpoint to resume from or `None`; check all settings before writing anything."""
    # The model comes first, so that a wrong recipe fails before any data is read.
    if arguments.cpu_threads is not None:
        torch.set_num_threads(arguments.cpu_threads)
    set_seed(arguments.seed)
    model, processor, training = build_model(model_arguments)
    training.freeze(model)
    side = mask_side(model)
    if model_arguments.lora:
        model = add_lora(model, model_arguments.lora)
    freeze_modules(model, arguments.freeze or [])
    resume_from = checkpoint_to_resume(arguments, model)
    with arguments.main_process_first(desc="building the dataset"):
        rows, held_out = load_train_and_validation(data_arguments, rebuild=arguments.local_process_index == 0)
    logger.info("%d images to train on, %d to validate on", len(rows), len(held_out))

    image_processor = processor.image_processor
    train_set = training_pictures(rows, image_processor, side, data_arguments, arguments.seed)
    if resume_from is None and model_arguments.model_name_or_path is None:
        fit_standardization(model, _pixel_batches(PictureDataset(rows, image_processor)))
    trainer_class = training.lora_trainer_class if model_arguments.lora else training.trainer_class
    trainer = trainer_class(
        model=model,
        args=arguments,
        data_collator=training.collator(processor),
        train_dataset=train_set,
        eval_dataset=PictureDataset(held_out, image_processor),
        compute_metrics=validation_metrics,
        processor=processor,
        sampler=training_sampler(rows, data_arguments, arguments.seed),
    )
    return trainer, resume_from


def _finish(trainer: ClassifierTrainer, data_arguments: DataArguments, train_seconds: float) -> None:
    """Calibrate the model on the validation images, and save it with the validation results."""
    config = trainer.finished_model().config
    trainer.save_model(_internal_call=True)  # first of all, because the training is done and must not be lost
    prediction = trainer.predict(trainer.eval_dataset, metric_key_prefix="validation")
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    differences, labels = (logits[:, 1] - logits[:, 0]).astype("float64"), prediction.label_ids
    if trainer.args.calibrate:
        config.calibration = fit_platt(labels, differences)
        scores = calibrated_probability(differences, config.calibration)
        config.operating_points = {"eer": detection_metrics(labels, scores).eer_threshold}
    if trainer.is_world_process_zero():
        trainer.save_model(_internal_call=True)
        scores = calibrated_probability(differences, config.calibration)
        report = {
            "command": launched_command(__package__),
            "seed": trainer.args.seed,
            "processes": trainer.args.world_size,
            "steps": trainer.state.max_steps,
            "best_step": trainer.state.best_global_step,
            "train_seconds": train_seconds,
            "cpu_threads": trainer.args.cpu_threads,
            "train_pictures": len(trainer.train_dataset),
            "dataset": data_arguments.dataset,
            "dataset_config": data_arguments.dataset_config,
            "dataset_options": data_arguments.dataset_options,
            "validation_fraction": data_arguments.validation_fraction,
            "validation_seed": data_arguments.validation_seed,
            "metrics": detection_metrics(labels, scores).to_dict(),
        }
        if data_arguments.validation_split is not None:  # instead of setting a share aside
            report |= {"validation_split": data_arguments.validation_split, "validation_fraction": None}
        write_text(Path(trainer.args.output_dir) / "validation.json", json.dumps(report, indent=2) + "\n")
    if trainer.args.push_to_hub:
        trainer.push_to_hub()


def _pixel_batches(pictures: PictureDataset) -> Iterator[torch.Tensor]:
    for start in range(0, len(pictures), STATISTICS_BATCH):
        stop = min(start + STATISTICS_BATCH, len(pictures))
        yield torch.stack([pictures[index]["pixel_values"] for index in range(start, stop)])


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    show_progress()
    train_classifier(*parse_recipe(arguments))


if __name__ == "__main__":
    main()
