"""LoRA in the classifier training: checkpoints hold the adapter alone, the finished folder both forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from deepfake_detectors.train.trainer import ClassifierTrainer

__all__ = ["ADAPTER_FOLDER", "LoraTrainer", "add_lora"]

ADAPTER_FOLDER = "adapter"


def add_lora(model: Any, fields: dict[str, Any]) -> PeftModel:
    """`model` with PEFT's LoRA; everything but it and `modules_to_save` is frozen.

    Args:
        model: a verdict model.
        fields: of `LoraConfig`.

    Raises:
        ValueError: for a field that `LoraConfig` does not have, or targets that match nothing.
    """
    try:
        config = LoraConfig(**fields)
    except TypeError as error:
        raise ValueError(f"lora does not fit PEFT's LoraConfig: {error}") from error
    return get_peft_model(model, config)


class LoraTrainer(ClassifierTrainer):
    """Trains a `PeftModel`; a finished folder holds the merged model, and the adapter in `adapter/`."""

    def save_beside_weights(self, folder: Path) -> None:
        super().save_beside_weights(folder)
        if isinstance(self.model, PeftModel):  # which family the adapter belongs to
            self.model.get_base_model().config.save_pretrained(folder)

    def finished_model(self) -> nn.Module:
        model = self.accelerator.unwrap_model(self.model)
        if isinstance(model, PeftModel):
            if self.is_world_process_zero():
                model.save_pretrained(Path(self.args.output_dir) / ADAPTER_FOLDER)
            # From here on the trainer evaluates, saves and pushes the whole model.
            model = self.model = self.model_wrapped = model.merge_and_unload()
        return model
