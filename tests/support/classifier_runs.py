"""Classifier trainings of the recipes at the size of tests, and trainers that take one given batch."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from deepfake_detectors.train import train_classifier
from deepfake_detectors.train.arguments import ClassifierTrainingArguments
from deepfake_detectors.train.data import Draw, TrainingSampler
from support.sft_runs import ON_THIS_MACHINE, recipe, write_recipe
from support.tiny_models import tiny_antifakeprompt

# recipe -> family; the miniature of each has `_mini` behind its name
CLASSIFIER_RECIPES = {
    "m2f2_det_stage1_bridge": "m2f2_det",
    "m2f2_det_stage1_cosine": "m2f2_det",
    "lvlm_dfd_stage1": "lvlm_dfd",
    "antifakeprompt": "antifakeprompt",
}


def small_fields(name: str, data: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """The full recipe on its miniature's model and a small generated tree, with a base beside `output` if need be."""
    whole, mini = recipe(name), recipe(f"{name}_mini")
    fields = {**whole, **ON_THIS_MACHINE, "pretrained_parts": None, "calibrate": False, "fp16": False}
    if CLASSIFIER_RECIPES[name] == "antifakeprompt":
        base = output.parent / f"{output.name}_base"
        if not base.exists():
            tiny_antifakeprompt(base)
        fields |= {"model_name_or_path": str(base), "model_config": None, "image_processor": None}
    else:
        fields |= {key: mini[key] for key in ("model_config", "image_processor", "lora") if key in mini}
    fields |= {"dataset": "ddvqa", "dataset_config": None, "data_dir": str(data), "validation_split": None}
    fields |= {"validation_fraction": 0.3, "validation_frames": None, "output_dir": str(output)}
    return {**fields, **changes}


def parsed(folder: Path, fields: dict[str, Any]) -> tuple[Any, ...]:
    return train_classifier.parse_recipe(write_recipe(folder / "recipe.yaml", fields))


class InOrder(TrainingSampler):
    """The rows as they come."""

    def order(self, generator):
        yield from range(self.length)


class Rows(torch.utils.data.Dataset):
    """Ready items; a trainer asks for them by `Draw`."""

    def __init__(self, items: list[dict[str, torch.Tensor]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: Draw | int) -> dict[str, torch.Tensor]:
        return self.items[draw.row if isinstance(draw, Draw) else draw]


class GradientKeeper(TrainerCallback):
    """What the optimizer of each step gets to see: gradients, and the weights before the step."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        named = list(model.named_parameters())
        self.gradients.append({name: weight.grad.clone() for name, weight in named if weight.grad is not None})
        self.weights.append({name: weight.detach().clone() for name, weight in named})


def held_in_eval_mode(model):
    """The goldens were recorded without dropout and with stored batch statistics."""
    model.eval()
    for module in (model, *([model.get_base_model()] if hasattr(model, "get_base_model") else [])):
        module.train = lambda mode=True: model
    return model


def train_on(trainer_kind, model, processor, items, folder, collator=None, **arguments):
    """Steps of a trainer on one batch; returns the trainer and what its optimizer saw."""
    settings = {**ON_THIS_MACHINE, "remove_unused_columns": False, "label_names": ["labels"], "save_strategy": "no"}
    settings |= {"max_steps": 1, "max_grad_norm": 0.0, "per_device_train_batch_size": len(items)}
    settings |= {"lr_scheduler_type": "constant", **arguments}
    keeper = GradientKeeper()
    trainer = trainer_kind(
        model=held_in_eval_mode(model),
        args=ClassifierTrainingArguments(output_dir=str(folder), **settings),
        train_dataset=Rows(items),
        data_collator=collator,
        processor=processor,
        sampler=InOrder(len(items)),
        callbacks=[keeper],
    )
    trainer.train()
    return trainer, keeper


def logged(trainer, name="loss"):
    return [entry[name] for entry in trainer.state.log_history if name in entry]
