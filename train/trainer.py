"""HF `Trainer` for image classifiers: balanced order, mask loss, learning rate per module, detection metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import EvalPrediction, ProcessorMixin, Trainer

from deepfake_detectors.evaluation.metrics import detection_metrics
from deepfake_detectors.train.freezing import is_inside, require_known, rest_frozen_norms
from deepfake_detectors.train.optimization import OPTIMIZERS, SCHEDULES
from deepfake_detectors.train.publishing import WithoutPickle
from deepfake_detectors.train.resuming import LoadsByClass

__all__ = ["ClassifierTrainer", "validation_metrics"]


class ClassifierTrainer(WithoutPickle, LoadsByClass, Trainer):
    """Trains any verdict model of this package; `args` are `ClassifierTrainingArguments`.

    Args:
        processor: saved with every checkpoint. (`processing_class` would be asked for a tokenizer.)
        sampler: order of the training rows.
    """

    def __init__(
        self, *args: Any, processor: ProcessorMixin, sampler: torch.utils.data.Sampler, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.processor = processor
        self.sampler = sampler
        # Its own smoother would replace the model's loss, mask loss included.
        self.label_smoother = None
        # `compute_loss` below gives a mean per batch, whatever the model's `forward` accepts.
        self.model_accepts_loss_kwargs = False

    def _save(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        super()._save(output_dir, *args, **kwargs)
        self.save_beside_weights(Path(output_dir or self.args.output_dir))

    def save_beside_weights(self, folder: Path) -> None:
        """What a folder holds beside the weights."""
        self.processor.save_pretrained(folder)

    def finished_model(self) -> nn.Module:
        """The trained model, without whatever wraps it while it trains."""
        return self.accelerator.unwrap_model(self.model)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return self.sampler

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if model.training:  # which every training step sets anew
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
        """The plateau schedule watches a metric of its own (the loss), not the one that picks the best checkpoint."""
        metrics = super()._evaluate(*args, skip_scheduler=True, **kwargs)
        if not skip_scheduler and isinstance(self.lr_scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            name = f"eval_{self.args.plateau_metric.removeprefix('eval_')}"
            if name not in metrics:
                raise ValueError(f"plateau_metric is {self.args.plateau_metric!r}; known are {', '.join(metrics)}.")
            self.lr_scheduler.step(metrics[name])
        return metrics

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """One group per learning rate and weight decay, in a stable order (a resumed optimizer relies on it)."""
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
    """Accuracy at the raw decision (fake logit above real), AUC and EER; the validation split has both classes."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    result = detection_metrics(prediction.label_ids, logits[:, 1] - logits[:, 0], threshold=0.0)
    return {"accuracy": result.accuracy, "auc": result.auc, "eer": result.eer}
