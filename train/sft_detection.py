"""Evaluation during fine-tuning: `detect` on the validation pictures."""

from __future__ import annotations

from typing import Any

import datasets
import torch
from accelerate.utils import gather_object
from torch.distributed.fsdp import register_fsdp_forward_method
from tqdm.auto import tqdm
from transformers import TrainerCallback

from deepfake_detectors.evaluation.metrics import detection_metrics

__all__ = ["DetectionCallback"]


class DetectionCallback(TrainerCallback):
    """Adds `eval_auc`, `eval_eer` and `eval_accuracy` to every evaluation, so that the best checkpoint can go by them.

    Args:
        trainer: a `DetectorSFTTrainer`.
        rows: with `image` and `label`, both classes.
        batch_size: pictures per call of `detect`.
    """

    def __init__(self, trainer: Any, rows: datasets.Dataset, batch_size: int) -> None:
        self.trainer, self.rows, self.batch_size = trainer, rows, batch_size
        self._registered = False

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        found = self.measure()
        if metrics is not None:
            metrics.update(found)  # what Trainer compares for the best checkpoint
        self.trainer.log(found)

    def measure(self) -> dict[str, float]:
        """Metrics at the raw decision; every process judges its share and gets the same answer."""
        found = dict(self._differences())
        labels = self.rows["label"][:]
        result = detection_metrics(labels, [found[index] for index in range(len(labels))], threshold=0.0)
        return {"eval_auc": result.auc, "eval_eer": result.eer, "eval_accuracy": result.accuracy}

    @torch.no_grad()
    def _differences(self) -> list[tuple[int, float]]:
        """(row, fake logit - real logit), some rows twice where they do not go evenly into the processes."""
        accelerator, processor = self.trainer.accelerator, self.trainer.processing_class
        model = accelerator.unwrap_model(self.trainer.model)
        if not self._registered:
            register_fsdp_forward_method(model, "detect")  # split weights are gathered for it as for `forward`
            self._registered = True
        training = model.training
        model.eval()
        found: list[tuple[int, float]] = []
        with accelerator.split_between_processes(list(range(len(self.rows))), apply_padding=True) as mine:
            starts = range(0, len(mine), self.batch_size)
            for start in tqdm(starts, desc="detect", leave=False, disable=self.trainer.args.disable_tqdm):
                indices = mine[start : start + self.batch_size]
                pictures = [picture.convert("RGB") for picture in self.rows.select(indices)["image"]]
                inputs = processor(images=pictures).to(accelerator.device)
                with accelerator.autocast():
                    logits = model.detect(**inputs).logits.double()
                found += zip(indices, (logits[:, 1] - logits[:, 0]).tolist(), strict=True)
        model.train(training)
        return gather_object(found)
