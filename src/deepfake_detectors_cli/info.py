"""`deepfake-detectors info`: what a checkpoint is, can do and may be used for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from deepfake_detectors_cli.console import OutputFormat, wants_table
from deepfake_detectors_cli.options import Format, Model

__all__ = ["info"]


def info(model: Model = None, format: Format = OutputFormat.auto) -> None:
    """Describe a detector: family, abilities, size, thresholds, calibration, licence.

    \b
    Examples:
      deepfake-detectors info
      deepfake-detectors info --model path/to/folder --format json
    """
    from deepfake_detectors_cli.loading import load_config

    source, config = load_config(model)
    facts = {**_facts(source, config), **_card(source, config)}
    if wants_table(format):
        _print_facts(facts)
    else:
        typer.echo(json.dumps(facts, ensure_ascii=False))


def _facts(source: str, config: Any) -> dict[str, Any]:
    import torch
    from transformers import AutoModel

    with torch.device("meta"):  # sizes only: no weights are read
        model = AutoModel.from_config(config)
    return {
        "model": source,
        "family": config.model_type,
        "class": type(model).__name__,
        "explains": model.can_explain,
        "localizes": model.can_localize,
        "parameters": model.num_parameters(),
        "dtype": str(config.dtype).removeprefix("torch.") if config.dtype else None,
        "operating_points": config.operating_points,
        "calibration": config.calibration,
    }


def _card(source: str, config: Any) -> dict[str, Any]:
    from huggingface_hub import ModelCard
    from transformers.utils import cached_file

    path = cached_file(source, "README.md", _raise_exceptions_for_missing_entries=False)
    facts: dict[str, Any] = {"license": None, "license_notice": getattr(config, "license_notice", None)}
    if path is None:
        return {**facts, "summary": None}
    card = ModelCard(Path(path).read_text(encoding="utf-8"))
    facts["license"] = card.data.get("license_name") or card.data.get("license")
    return {**facts, "summary": _first_paragraph(card.text)}


def _first_paragraph(text: str) -> str | None:
    for paragraph in text.split("\n\n"):
        if paragraph.strip() and not paragraph.lstrip().startswith(("#", "<!--", "|", "```", "![")):
            return " ".join(paragraph.split())
    return None


def _print_facts(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(_in_words(value)))
    Console(file=sys.stdout).print(table)


def _in_words(value: Any) -> str:
    if value is None or value == {}:
        return "none given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    return str(value)
