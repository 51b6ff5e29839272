"""`deepfake-detectors info`: list the detectors, or show what one can do and how it may be used."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import OutputFormat, fail, hide_loading_bars, wants_table
from deepfake_detectors_cli.options import Family, Format
from deepfake_detectors_cli.rendering import print_facts, print_records
from deepfake_detectors_cli.tables import list_checkpoints, list_families, list_plugins

__all__ = ["info"]


def info(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Detector to describe: folder, Hub id, or name of a built-in detector.",
        ),
    ] = None,
    family: Family = None,
    format: Format = OutputFormat.auto,
) -> None:
    """Describe a detector: family, abilities, size, thresholds, calibration, license. Without --model, list all.

    \b
    Examples:
      deepfake-detectors info
      deepfake-detectors info --model m2f2-det-mini
      deepfake-detectors info --model path/to/folder --format json

    The list shows the families of detectors, their official checkpoints, families added by other installed packages,
    and the built-in detectors.
    """
    if model is None:
        if family is not None:
            fail("--family applies to the folder given by --model: add --model.")
        _list_all(wants_table(format))
        return

    from deepfake_detectors import model_info

    hide_loading_bars()
    facts = model_info(model, family)
    if wants_table(format):
        print_facts(facts)
    else:
        typer.echo(json.dumps(facts, ensure_ascii=False))


def _list_all(table: bool) -> None:
    found = {"families": list_families(), "plugins": list_plugins(), "checkpoints": list_checkpoints()}
    if not table:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    print_records(found["families"], ("name", "title", "judges", "writes_text"))
    typer.echo("\nPapers and official checkpoints:")
    for family in found["families"]:
        typer.echo(f"{family['name']}")
        for line in _sources(family):
            typer.echo(f"  {line}")
    if found["plugins"]:
        typer.echo("\nFamilies from other packages:")
        print_records(found["plugins"], ("name", "package"))
    typer.echo("\nBuilt-in detectors:")
    print_records(found["checkpoints"], ("name", "family"))


def _sources(family: dict[str, Any]) -> list[str]:
    """Return the papers of a family, and where its official weights are, on which terms and what they need."""
    ways = {"stock": "loads by its Hub id", "convert": "needs `convert`"}
    lines = [f"paper: {family['paper']}"] if family["paper"] else []
    for item in family["official"]:
        known = [item[name] for name in ("where", "terms") if name in item]
        lines.append(f"{item['id']} ({ways[item['loads']]}): {', '.join(known)}".removesuffix(": "))
    return lines
