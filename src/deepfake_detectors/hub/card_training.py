"""What a card says of the training that made a checkpoint, from the `validation.json` that the training wrote."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

__all__ = ["training_bases", "training_commands", "training_data", "training_sentence", "validation_sentence"]

# How Trainer calls what it measures, and how a reader knows it.
MEASURED = {"eval_accuracy": "accuracy", "eval_auc": "AUC", "eval_eer": "EER", "eval_loss": "loss"}


def training_sentence(validation: dict[str, Any], machine: str | None = None) -> str:
    """Size and length of the training; `machine` says where it ran."""
    amounts = {"train_pictures": "pictures", "train_rows": "conversations", "train_texts": "texts"}
    parts = [f"{validation[key]} {unit}" for key, unit in amounts.items() if key in validation]
    parts.append(f"{validation['steps']} steps")
    if validation["best_step"] is not None:
        parts.append(f"best checkpoint at step {validation['best_step']}")
    duration = f"{validation['train_seconds'] / 60:.0f} minutes"
    if validation.get("cpu_threads") is not None:
        duration += f" on {validation['cpu_threads']} thread(s)"
    elif validation.get("processes", 1) > 1:
        duration += f" on {validation['processes']} processes"
    return ", ".join([*parts, f"seed {validation['seed']}", duration]) + (f" of {machine}." if machine else ".")


def validation_sentence(validation: dict[str, Any]) -> str:
    """What was measured on the validation pictures at the end."""
    metrics = validation["metrics"]
    if "num_real" in metrics:
        found = {"accuracy": metrics["accuracy"], "AUC": metrics["auc"], "EER": metrics["eer"]}
        pictures = f"{metrics['num_real']} real and {metrics['num_fake']} fake validation pictures"
    else:
        found = {label: metrics[name] for name, label in MEASURED.items() if name in metrics}
        pictures = f"{validation['validation_pictures']} validation pictures"
    values = [f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in found.items()]
    return f"On the {pictures}: {', '.join(values)}."


def training_commands(facts: dict[str, Any], validation: dict[str, Any] | None) -> list[str]:
    """The command that the training noted down, without the places of its folders, or else those of the facts."""
    if validation and validation.get("command"):
        words = shlex.split(validation["command"])
        return [shlex.join(Path(word).name if Path(word).is_absolute() else word for word in words)]
    return list(facts.get("commands", {}).values())


def training_bases(facts: dict[str, Any], validation: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The models below: those of the facts, or the Hub id from which the training started (a folder has none)."""
    start = (validation or {}).get("model_name_or_path")
    if facts.get("base_models") or not start or Path(start).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", start):
        return facts.get("base_models", [])
    return [{"id": start, "revision": None, "relation": "finetune"}]


def training_data(facts: dict[str, Any], validation: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The data sets of the training: those of the facts, or the builder of this package that read them."""
    if facts.get("datasets") or not (validation and validation.get("dataset")):
        return facts.get("datasets", [])
    configs = validation.get("dataset_configs") or [validation.get("dataset_config")]
    named = ", ".join(str(config) for config in configs if config)
    builder = f"`{validation['dataset']}` of deepfake-detectors"
    return [{"name": f"{builder} ({named})" if named else builder, "revision": validation.get("dataset_version")}]
