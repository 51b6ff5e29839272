"""Trainers for detectors, based on Hugging Face's `Trainer` and TRL's `SFTTrainer`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.utils import gather_object
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import EvalPrediction, ProcessorMixin, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from trl import SFTTrainer

from deepfake_detectors.data.loading import undecoded
from deepfake_detectors.evaluation.metrics import detection_metrics
from deepfake_detectors.modeling.image_loading import load_image
from deepfake_detectors.outputs import lock_beside
from deepfake_detectors.train.optimization import OPTIMIZERS, SCHEDULES, is_inside, require_known, rest_frozen_norms
from deepfake_detectors.train.resuming import LoadsByClass

__all__ = [
    "ADAPTER_FOLDER",
    "ClassifierTrainer",
    "DetectionCallback",
    "DetectorSFTTrainer",
    "LoraTrainer",
    "WithoutPickle",
    "add_lora",
    "run_lock",
    "validation_metrics",
]


@contextmanager
def run_lock(arguments: TrainingArguments) -> Iterator[None]:
    """Lock the output folder during a run, in its first process.

    Raises:
        OutputInUseError: if another run uses it.
    """
    if arguments.process_index:
        yield
        return
    folder = Path(str(arguments.output_dir))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock_beside(folder):  # not inside, where it might be pushed to the Hub
        yield


class WithoutPickle:
    """Mixin before a `Trainer`: saves models without `training_args.bin`, the only pickle among their files.

    Checkpoints for resuming still contain the state of optimizer and random generators; they are not uploaded.
    """

    args: TrainingArguments

    def _save(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        super()._save(output_dir, *args, **kwargs)  # type: ignore[misc]
        if self.args.should_save:
            (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)


class ClassifierTrainer(WithoutPickle, LoadsByClass, Trainer):
    """Trains any verdict model of this package; `args` are `ClassifierTrainingArguments`.

    Args:
        processor: saved with every checkpoint. (`processing_class` would have to be a tokenizer.)
        sampler: order of the training rows.
    """

    def __init__(
        self, *args: Any, processor: ProcessorMixin, sampler: torch.utils.data.Sampler, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.processor = processor
        self.sampler = sampler
        # The Trainer's label smoother would replace the model's loss, including the mask loss.
        self.label_smoother = None
        # `compute_loss` below returns a mean per batch, regardless of the arguments of `forward`.
        self.model_accepts_loss_kwargs = False

    def _save(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        super()._save(output_dir, *args, **kwargs)
        self.save_beside_weights(Path(output_dir or self.args.output_dir))

    def save_beside_weights(self, folder: Path) -> None:
        """Files that a folder has in addition to the weights."""
        self.processor.save_pretrained(folder)

    def finished_model(self) -> nn.Module:
        """Return the trained model without its training wrappers."""
        return self.accelerator.unwrap_model(self.model)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return self.sampler

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if model.training:  # which every training step sets again
            rest_frozen_norms(model)
        smoothing = self.args.label_smoothing_factor
        if smoothing and model.training:
            labels = inputs["labels"]
            outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
            loss = F.cross_entropy(outputs.logits.float(), labels, label_smoothing=smoothing)
            if outputs.loss is not None:
                loss = loss + outputs.loss
        else:
            outputs = model(**inputs)
            loss = outputs.loss
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self.optimizer is None:
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            if self.args.optimizer is not None:
                optimizer_class = OPTIMIZERS[self.args.optimizer]
                options = {
                    "lr": self.args.learning_rate,
                    "betas": (self.args.adam_beta1, self.args.adam_beta2),
                    "eps": self.args.adam_epsilon,
                }
            self.optimizer = optimizer_class(self._parameter_groups(), **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.args.lr_schedule is None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler = SCHEDULES[self.args.lr_schedule](
                self.optimizer if optimizer is None else optimizer,
                self.args.learning_rate,
                self._steps_per_epoch(),
                self.args.num_train_epochs,
                **self.args.lr_scheduler_kwargs,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _steps_per_epoch(self) -> int:
        batches = -(-len(self.sampler) // (self.args.train_batch_size * self.args.world_size))
        return -(-batches // self.args.gradient_accumulation_steps)

    def _evaluate(self, *args: Any, skip_scheduler: bool = False, **kwargs: Any) -> dict[str, float]:
        """Give the plateau schedule its own metric (the loss) instead of that for the best checkpoint."""
        metrics = super()._evaluate(*args, skip_scheduler=True, **kwargs)
        if not skip_scheduler and isinstance(self.lr_scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            name = f"eval_{self.args.plateau_metric.removeprefix('eval_')}"
            if name not in metrics:
                raise ValueError(
                    f"plateau_metric is {self.args.plateau_metric!r}; available are {', '.join(metrics)}."
                )
            self.lr_scheduler.step(metrics[name])
        return metrics

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group per learning rate and weight decay, in a stable order for resuming."""
        rates = {name: float(rate) for name, rate in self.args.learning_rates.items()}
        decayed = set(self.get_decay_parameter_names(self.model))
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            prefixes = [prefix for prefix in rates if is_inside(name, prefix)]
            rate = rates[max(prefixes, key=len)] if prefixes else self.args.learning_rate
            decay = self.args.weight_decay if self.args.decay_everything or name in decayed else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        names = [name for name, _ in self.model.named_parameters()]
        require_known(rates, names, "learning_rates")
        return [
            {"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()
        ]


def validation_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Compute accuracy at the raw decision (fake logit above real), AUC and EER; both classes must be present."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    result = detection_metrics(prediction.label_ids, logits[:, 1] - logits[:, 0], threshold=0.0)
    return {"accuracy": result.accuracy, "auc": result.auc, "eer": result.eer}


ADAPTER_FOLDER = "adapter"


def add_lora(model: Any, fields: dict[str, Any]) -> PeftModel:
    """Add PEFT's LoRA to `model`; everything except it and `modules_to_save` is frozen.

    Args:
        model: a verdict model.
        fields: fields of `LoraConfig`.

    Raises:
        ValueError: for an unknown field of `LoraConfig`, or targets without a match.
    """
    try:
        config = LoraConfig(**fields)
    except TypeError as error:
        raise ValueError(f"lora does not fit PEFT's LoraConfig: {error}") from error
    return get_peft_model(model, config)


class LoraTrainer(ClassifierTrainer):
    """Trains a `PeftModel`; the finished folder has the merged model, and the adapter in `adapter/`."""

    def save_beside_weights(self, folder: Path) -> None:
        super().save_beside_weights(folder)
        if isinstance(self.model, PeftModel):  # which family the adapter belongs to
            self.model.get_base_model().config.save_pretrained(folder)

    def finished_model(self) -> nn.Module:
        model = self.accelerator.unwrap_model(self.model)
        if isinstance(model, PeftModel):
            if self.is_world_process_zero():
                model.save_pretrained(Path(self.args.output_dir) / ADAPTER_FOLDER)
            # From here on the trainer evaluates, saves and pushes the merged model.
            model = self.model = self.model_wrapped = model.merge_and_unload()
        return model


class DetectorSFTTrainer(WithoutPickle, LoadsByClass, SFTTrainer):
    """Trains a generating detector.

    Frozen batch norms and completely frozen detectors stay in eval mode. Otherwise batch norms would update their
    statistics, and dropout would change the verdict compared to inference.

    Args:
        own_loss: whether to use the loss of the model's `forward` over all supervised tokens of a global batch,
            independent of processes and accumulation steps; otherwise TRL's loss.
        detector: name of the module that gives the verdict, if it is separate.
    """

    def __init__(self, *args: Any, own_loss: bool, detector: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own_loss, self.detector = own_loss, detector
        if own_loss:
            # Counts the supervised tokens of the global batch, even for models whose class does not use them.
            self.model_accepts_loss_kwargs = True

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self._rest_frozen_parts()
        if not self.own_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # Calls Trainer's method, because SFTTrainer's would not call `forward`.
        return super(SFTTrainer, self).compute_loss(
            model, {**inputs, "use_cache": False}, return_outputs, num_items_in_batch
        )

    def _rest_frozen_parts(self) -> None:
        # Done here, because every training step puts the whole model back into train mode.
        model = self.bare_model
        rest_frozen_norms(model)
        if self.detector is not None:
            detector = model.get_submodule(self.detector)
            if not any(parameter.requires_grad for parameter in detector.parameters()):
                detector.eval()

    @property
    def bare_model(self) -> Any:
        """Return the detector without the wrappers of distribution and PEFT; its LoRA layers remain."""
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model


class DetectionCallback(TrainerCallback):
    """Adds `eval_auc`, `eval_eer` and `eval_accuracy` to every evaluation, for choosing the best checkpoint.

    Args:
        trainer: a `DetectorSFTTrainer`.
        rows: with `image` and `label`, both classes.
        batch_size: images per call of `detect`.
    """

    def __init__(self, trainer: Any, rows: datasets.Dataset, batch_size: int) -> None:
        self.trainer, self.rows, self.batch_size = trainer, undecoded(rows), batch_size
        self._registered = False

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        found = self.measure()
        if metrics is not None:
            metrics.update(found)  # compared by Trainer for the best checkpoint
        self.trainer.log(found)

    def measure(self) -> dict[str, float]:
        """Compute metrics at the raw decision; every process scores its share and gets the same result."""
        found = dict(self._differences())
        labels = self.rows["label"][:]
        result = detection_metrics(labels, [found[index] for index in range(len(labels))], threshold=0.0)
        return {"eval_auc": result.auc, "eval_eer": result.eer, "eval_accuracy": result.accuracy}

    @torch.no_grad()
    def _differences(self) -> list[tuple[int, float]]:
        """Return (row, fake logit - real logit); some rows occur twice if they do not divide evenly."""
        accelerator, processor = self.trainer.accelerator, self.trainer.processing_class
        model = accelerator.unwrap_model(self.trainer.model)
        if not self._registered:
            register_fsdp_forward_method(model, "detect")  # sharded weights are gathered for it as for `forward`
            self._registered = True
        training = model.training
        model.eval()
        found: list[tuple[int, float]] = []
        with accelerator.split_between_processes(list(range(len(self.rows))), apply_padding=True) as mine:
            starts = range(0, len(mine), self.batch_size)
            for start in tqdm(starts, desc="detect", leave=False, disable=self.trainer.args.disable_tqdm):
                indices = mine[start : start + self.batch_size]
                pictures = [load_image(picture) for picture in self.rows.select(indices)["image"]]
                inputs = processor(images=pictures).to(accelerator.device)
                with accelerator.autocast():
                    logits = model.detect(**inputs).logits.double()
                found += zip(indices, (logits[:, 1] - logits[:, 0]).tolist(), strict=True)
        model.train(training)
        return gather_object(found)
