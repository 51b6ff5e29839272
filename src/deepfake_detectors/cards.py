"""Render a model card from facts and measured results; no number in a card is typed by hand.

    python -m deepfake_detectors.cards --facts hub_cards/facts/m2f2_det_default.yaml \
        --folder src/deepfake_detectors/default_checkpoint

reads `config.json`, `results.json` and `validation.json` of the folder and writes its `README.md`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined
from transformers import HfArgumentParser

from deepfake_detectors.default_checkpoint import LICENSE_NOTICE

__all__ = ["CardArguments", "render_model_card", "write_model_card"]

METRIC_NAMES = {"accuracy": "Accuracy", "auc": "AUC", "eer": "Equal error rate"}


@dataclass
class CardArguments:
    """Which card to render."""

    folder: str = field(metadata={"help": "Checkpoint folder with config.json, results.json and validation.json."})
    facts: str = field(metadata={"help": "YAML file with what no command measures."})


def render_model_card(
    facts: dict[str, Any], results: dict[str, Any], validation: dict[str, Any], config: dict[str, Any]
) -> str:
    """The card as Markdown with a YAML header that holds a `model-index`.

    Args:
        facts: see `hub_cards/facts/m2f2_det_default.yaml` for the keys.
        results: what `evaluate_classifier` wrote.
        validation: what the training wrote.
        config: the model's `config.json`.

    Raises:
        jinja2.UndefinedError: naming the key, if one of them lacks something the card states.
    """
    header = ModelCardData(
        license=facts["license"],
        license_name=facts["license_name"],
        license_link=facts["license_link"],
        library_name=facts["library_name"],
        pipeline_tag=facts["pipeline_tag"],
        tags=facts["tags"],
        model_name=facts["model_name"],
        eval_results=[
            EvalResult(
                task_type="image-classification",
                task_name="Deepfake detection",
                dataset_type=facts["dataset_type"],
                dataset_name=facts["dataset_name"],
                dataset_config=results["dataset_config"],
                dataset_split=results["split"],
                metric_type=name,
                metric_name=METRIC_NAMES[name],
                metric_value=entry["value"],
            )
            for name, entry in results["metrics"].items()
            if entry["value"] is not None  # an undefined metric has no place in an index of values
        ],
    )
    environment = Environment(undefined=StrictUndefined, trim_blocks=False, keep_trailing_newline=True)
    environment.globals |= {
        "three": _three,
        "number": _number,
        "interval": _interval,
        "percent": _percent,
        "wrong": _wrong,
    }
    template = files("deepfake_detectors.hub_cards").joinpath("model_card.md.jinja").read_text(encoding="utf-8")
    body = environment.from_string(template).render(
        facts=facts, results=results, validation=validation, config=config, license_notice=LICENSE_NOTICE
    )
    return f"---\n{header.to_yaml()}\n---\n\n{body}"


def write_model_card(folder: Path, facts: Path) -> Path:
    """Render the card of a checkpoint folder into its `README.md`.

    Raises:
        FileNotFoundError: if the folder lacks one of the files that hold its numbers.
    """
    measured = {}
    for name in ("results", "validation", "config"):
        path = folder / f"{name}.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing. validation.json is written by the training, results.json by "
                "python -m deepfake_detectors.evaluation.evaluate_classifier."
            )
        measured[name] = json.loads(path.read_text(encoding="utf-8"))
    card = render_model_card(yaml.safe_load(facts.read_text(encoding="utf-8")), **measured)
    target = folder / "README.md"
    target.write_text(card, encoding="utf-8")
    return target


def _three(value: float) -> str:
    return f"{value:.3f}"


def _number(entry: dict[str, Any]) -> str:
    return "undefined" if entry["value"] is None else _three(entry["value"])


def _interval(entry: dict[str, Any]) -> str:
    return "" if entry["low"] is None else f"{entry['low']:.3f} to {entry['high']:.3f}"


def _wrong(accuracy: dict[str, Any], pictures: int) -> int:
    return round((1 - accuracy["value"]) * pictures)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def main(arguments: list[str] | None = None) -> None:
    """Command line entry."""
    (parsed,) = HfArgumentParser(CardArguments).parse_args_into_dataclasses(arguments)
    write_model_card(Path(parsed.folder), Path(parsed.facts))


if __name__ == "__main__":
    main()
