"""TRL's `SFTTrainer` for detectors: frozen parts at rest, the model's own loss where it needs it."""

from __future__ import annotations

from typing import Any

from torch import nn
from trl import SFTTrainer

from deepfake_detectors.train.freezing import rest_frozen_norms
from deepfake_detectors.train.publishing import WithoutPickle
from deepfake_detectors.train.resuming import LoadsByClass
from deepfake_detectors.train.sft_families import SftFamily

__all__ = ["DetectorSFTTrainer"]


class DetectorSFTTrainer(WithoutPickle, LoadsByClass, SFTTrainer):
    """Trains a generating detector.

    A frozen batch norm, and a wholly frozen detector, stay in eval mode: the one would still learn its statistics,
    the dropout of the other would make its verdict another one than at inference.

    Args:
        family: see `SftFamily`; with `own_loss` the loss is that of the model's `forward`, over all supervised tokens
            of a global batch, whatever the number of processes and accumulation steps.
    """

    def __init__(self, *args: Any, family: SftFamily, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.family = family
        if family.own_loss:
            # Counts the supervised tokens of the global batch, also for models whose class says they do not care.
            self.model_accepts_loss_kwargs = True

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self._rest_frozen_parts()
        if not self.family.own_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # Trainer's, behind SFTTrainer's, which would not call `forward`.
        return super(SFTTrainer, self).compute_loss(
            model, {**inputs, "use_cache": False}, return_outputs, num_items_in_batch
        )

    def _rest_frozen_parts(self) -> None:
        # Here, because every training step puts the whole model into train mode again.
        model = self.bare_model
        rest_frozen_norms(model)
        if self.family.detector is not None:
            detector = model.get_submodule(self.family.detector)
            if not any(parameter.requires_grad for parameter in detector.parameters()):
                detector.eval()

    @property
    def bare_model(self) -> Any:
        """The detector itself, without what distribution and PEFT put around it; its LoRA layers stay in it."""
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model
