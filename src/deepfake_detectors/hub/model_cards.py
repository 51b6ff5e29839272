"""Render a model card from facts, results and the training record; no number is typed by hand.

    python -m deepfake_detectors.hub.model_cards --facts hub_cards/facts/m2f2_det_default.yaml \
        --folder src/deepfake_detectors/checkpoints/m2f2_det_mini

reads `config.json`, `results.json` and `validation.json` of the folder and writes its `README.md`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData
from jinja2 import Environment, FunctionLoader, StrictUndefined
from transformers import HfArgumentParser

from deepfake_detectors.facts import read_facts
from deepfake_detectors.files import read_json_object
from deepfake_detectors.hub.model_results import better, dataset_of, metric_name, model_index, result_parts
from deepfake_detectors.loading import open_checkpoint
from deepfake_detectors.markup import as_markdown
from deepfake_detectors.registration import AutoModelForDeepfakeDetection

__all__ = [
    "CardArguments",
    "Publication",
    "card_terms",
    "render_model_card",
    "training_bases",
    "training_commands",
    "training_data",
    "write_model_card",
]

TEMPLATE = "model_card.md.jinja"
# Names of metrics in Trainer, and for readers.
MEASURED = {"eval_accuracy": "accuracy", "eval_auc": "AUC", "eval_eer": "EER", "eval_loss": "loss"}


@dataclass
class CardArguments:
    """Options of the command."""

    folder: str = field(metadata={"help": "Checkpoint folder with config.json, results.json and validation.json."})
    facts: str = field(metadata={"help": "YAML file with facts that are not measured by a command."})


@dataclass(frozen=True)
class Publication:
    """Additional information for the card of a checkpoint on the Hub.

    Attributes:
        repo: `owner/name`.
        parameters: number of weights in the folder.
        adapter: whether the folder only has an adapter.
        explains, localizes: abilities of the class.
        bases: for each base model `id`, `revision` (`None` if unknown) and `relation` (`"adapter"`, `"finetune"`, ...,
            or `None` if it is the same model in another format).
        datasets: for each training dataset `name` and `revision` (`None` if unknown).
        licenses: licence files in the checkpoint.
    """

    repo: str
    parameters: int
    adapter: bool = False
    explains: bool = False
    localizes: bool = False
    bases: Sequence[dict[str, Any]] = ()
    datasets: Sequence[dict[str, Any]] = ()
    licenses: Sequence[str] = ()


def render_model_card(
    facts: dict[str, Any],
    results: dict[str, Any] | None,
    validation: dict[str, Any] | None,
    config: dict[str, Any],
    publication: Publication | None = None,
    explanations: dict[str, Any] | None = None,
    parameters: int | None = None,
) -> str:
    """Return the card as Markdown with a YAML header that includes a `model-index`.

    Args:
        facts: see `hub_cards/facts/m2f2_det_default.yaml` and `facts.py` for the keys.
        results: output of `evaluate`; `None` if nothing was measured.
        validation: output of the training; `None` if there is none.
        config: the model's `config.json`.
        publication: its information for the Hub; `None` for the folder inside the package.
        explanations: results about the answers of the embedded default; `None` if there are none.
        parameters: number of weights; by default the one in `publication`.

    Raises:
        jinja2.UndefinedError, KeyError: naming the key, if one of them lacks an entry that the card needs.
    """
    bases = list(publication.bases) if publication else []
    named = [base["id"] for base in bases]
    header = ModelCardData(
        license=facts["license"],
        license_name=facts.get("license_name"),
        license_link=facts.get("license_link"),
        library_name=facts["library_name"],
        pipeline_tag=facts["pipeline_tag"],
        tags=facts["tags"],
        base_model=named[0] if len(named) == 1 else named or None,
        base_model_relation=bases[0]["relation"] if bases else None,
        model_name=facts["model_name"],
        eval_results=(model_index(results, facts) if results else None) or None,
    )
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, loader=FunctionLoader(_read_template)
    )
    environment.filters["plain"] = as_markdown
    environment.globals |= {
        "three": _three,
        "number": _number,
        "interval": _interval,
        "percent": _percent,
        "wrong": _wrong,
        "metric_name": metric_name,
        "training_sentence": training_sentence,
        "validation_sentence": validation_sentence,
    }
    # Probes are not trained in steps, so their validation results have another format.
    probe = validation if validation and "heads" in validation else None
    validation = None if probe else validation
    body = environment.get_template(TEMPLATE).render(
        facts=facts,
        results=results,
        validation=validation,
        probe=probe,
        explanations=explanations,
        config=config,
        terms=card_terms(facts, config),
        licenses=list(publication.licenses) if publication else [],
        repo=publication.repo if publication else None,
        parameters=publication.parameters if publication else parameters,
        adapter=bool(publication and publication.adapter),
        explains=bool(publication and publication.explains),
        localizes=bool(publication and publication.localizes),
        bases=bases,
        datasets=list(publication.datasets) if publication else [],
        commands=training_commands(facts, validation) if publication else [],
        parts=result_parts(results) if results else [],
        dataset_label=_label(dataset_of(results, facts)) if results else "",
        better=lambda name: better(name, results or {}),
    )
    return f"---\n{header.to_yaml()}\n---\n\n" + re.sub(r"\n{3,}", "\n\n", body)


def card_terms(facts: dict[str, Any], config: dict[str, Any]) -> str:
    """Return the licence notice of the weights, followed by that of their family."""
    return "\n\n".join(text for text in (config.get("license_notice"), facts.get("terms")) if text)


def write_model_card(folder: Path, facts: Path) -> Path:
    """Render the card of a checkpoint folder into its `README.md`.

    Raises:
        FileNotFoundError: if the folder lacks one of the files with its numbers.
    """
    results, validation, config = (_measured(folder, name) for name in ("results", "validation", "config"))
    answers = folder / "explanations.json"
    with torch.device("meta"):  # used to count weights, without loading them
        loaded = open_checkpoint(folder).load_config()
        model = AutoModelForDeepfakeDetection.from_config(loaded, trust_remote_code=False)
    card = render_model_card(
        read_facts(facts, config, type(model).__name__, folder.name),
        results,
        validation,
        config,
        explanations=read_json_object(answers) if answers.is_file() else None,
        parameters=model.num_parameters(),
    )
    target = folder / "README.md"
    target.write_text(card, encoding="utf-8")
    return target


def _measured(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. validation.json is written by training, results.json by `evaluate`."
        )
    return read_json_object(path)


def training_sentence(validation: dict[str, Any], machine: str | None = None) -> str:
    """Return the size and length of the training; `machine` is where it ran."""
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
    """Return the final results on the validation images."""
    metrics = validation["metrics"]
    if "num_real" in metrics:
        found = {"accuracy": metrics["accuracy"], "AUC": metrics["auc"], "EER": metrics["eer"]}
        pictures = f"{metrics['num_real']} real and {metrics['num_fake']} fake validation images"
    else:
        found = {label: metrics[name] for name, label in MEASURED.items() if name in metrics}
        pictures = f"{validation['validation_pictures']} validation images"
    values = [f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in found.items()]
    return f"On the {pictures}: {', '.join(values)}."


def training_commands(facts: dict[str, Any], validation: dict[str, Any] | None) -> list[str]:
    """Return the recorded training command without folder locations, or else the commands in the facts."""
    if validation and validation.get("command"):
        words = shlex.split(validation["command"])
        return [shlex.join(Path(word).name if Path(word).is_absolute() else word for word in words)]
    return list(facts.get("commands", {}).values())


def training_bases(facts: dict[str, Any], validation: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the base models from the facts, or the Hub id that training started from."""
    start = (validation or {}).get("model_name_or_path")
    if facts.get("base_models") or not start or Path(start).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", start):
        return facts.get("base_models", [])
    return [{"id": start, "revision": None, "relation": "finetune"}]


def training_data(facts: dict[str, Any], validation: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the training datasets from the facts, or the builder of this package that read them."""
    if facts.get("datasets") or not (validation and validation.get("dataset")):
        return facts.get("datasets", [])
    configs = validation.get("dataset_configs") or [validation.get("dataset_config")]
    named = ", ".join(str(config) for config in configs if config)
    builder = f"`{validation['dataset']}` of deepfake-detectors"
    return [{"name": f"{builder} ({named})" if named else builder, "revision": validation.get("dataset_version")}]


def _read_template(name: str) -> str | None:
    path = files("deepfake_detectors.hub_cards").joinpath(name)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _label(dataset: dict[str, str | None]) -> str:
    return ", ".join(part for part in (dataset["name"], dataset["config"], dataset["split"]) if part)


def _three(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _number(entry: dict[str, Any]) -> str:
    return _three(entry["value"])


def _interval(entry: dict[str, Any]) -> str:
    return "" if entry["low"] is None else f"{entry['low']:.3f} to {entry['high']:.3f}"


def _wrong(accuracy: dict[str, Any], pictures: int) -> int:
    return round((1 - accuracy["value"]) * pictures)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    (parsed,) = HfArgumentParser(CardArguments).parse_args_into_dataclasses(arguments)
    write_model_card(Path(parsed.folder), Path(parsed.facts))


if __name__ == "__main__":
    main()
