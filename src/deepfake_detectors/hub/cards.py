"""Render a model card from facts and measured results; no number in a card is typed by hand.

    python -m deepfake_detectors.hub.cards --facts hub_cards/facts/m2f2_det_default.yaml \
        --folder src/deepfake_detectors/checkpoints/m2f2_det_mini

reads `config.json`, `results.json` and `validation.json` of the folder and writes its `README.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FunctionLoader, StrictUndefined
from transformers import HfArgumentParser

from deepfake_detectors.hub.card_results import better, dataset_of, metric_name, model_index, result_parts
from deepfake_detectors.hub.card_training import training_commands, training_sentence, validation_sentence
from deepfake_detectors.hub.facts import read_facts

__all__ = ["CardArguments", "Publication", "card_terms", "render_model_card", "write_model_card"]

TEMPLATE = "model_card.md.jinja"


@dataclass
class CardArguments:
    """Which card to render."""

    folder: str = field(metadata={"help": "Checkpoint folder with config.json, results.json and validation.json."})
    facts: str = field(metadata={"help": "YAML file with what no command measures."})


@dataclass(frozen=True)
class Publication:
    """What a card says of a checkpoint beside its facts and results, once it has a place on the Hub.

    Attributes:
        repo: `owner/name`.
        parameters: number of weights in the folder.
        adapter: whether the folder holds an adapter alone.
        explains, localizes: what the class can do.
        bases: per model below `id`, `revision` (`None` if unknown) and `relation` (`"adapter"`, `"finetune"`, ..., or
            `None` where it is the same model in another form).
        datasets: per data set of the training `name` and `revision` (`None` if unknown).
        licenses: licence files that the checkpoint brought along.
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
) -> str:
    """The card as Markdown with a YAML header that holds a `model-index`.

    Args:
        facts: see `hub_cards/facts/m2f2_det_default.yaml` and `card_facts` for the keys.
        results: what `evaluate` or `evaluate_classifier` wrote; `None` if nothing was measured.
        validation: what the training wrote; `None` if it wrote nothing.
        config: the model's `config.json`.
        publication: its place on the Hub; `None` for the folder inside the package.
        explanations: what the embedding of the default found out about its answers; `None` if nothing was asked.

    Raises:
        jinja2.UndefinedError, KeyError: naming the key, if one of them lacks something the card states.
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
    # Probes are not trained in steps: what was measured of them has a form of its own.
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
        parameters=publication.parameters if publication else (results or {}).get("parameters"),
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
    """What the weights say of themselves, and then what holds of their whole family."""
    return "\n\n".join(text for text in (config.get("license_notice"), facts.get("terms")) if text)


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
    answers = folder / "explanations.json"
    if answers.is_file():
        measured["explanations"] = json.loads(answers.read_text(encoding="utf-8"))
    described = read_facts(facts, measured["config"], measured["config"]["architectures"][0], folder.name)
    card = render_model_card(described, **measured)
    target = folder / "README.md"
    target.write_text(card, encoding="utf-8")
    return target


def _read_template(name: str) -> str | None:
    path = files("deepfake_detectors.hub_cards").joinpath(name)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _label(dataset: dict[str, str | None]) -> str:
    return ", ".join(part for part in (dataset["name"], dataset["config"], dataset["split"]) if part)


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
