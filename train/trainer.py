"""HF `Trainer` for image classifiers: balanced order, mask loss, learning rate per module, detection metrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import EvalPrediction, ProcessorMixin, Trainer

from deepfake_detectors.evaluation.metrics import detection_metrics
from deepfake_detectors.train.freezing import is_inside, require_known

__all__ = ["ClassifierTrainer", "validation_metrics"]


class ClassifierTrainer(Trainer):
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

    def _save(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        super()._save(output_dir, *args, **kwargs)
        self.processor.save_pretrained(output_dir or self.args.output_dir)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return self.sampler

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
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
            self.optimizer = optimizer_class(self._parameter_groups(), **options)
        return self.optimizer

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
            decay = self.args.weight_decay if name in decayed else 0.0
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
