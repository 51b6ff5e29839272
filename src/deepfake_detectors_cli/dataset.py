"""`deepfake-detectors dataset`: list and describe datasets, check that a copy is complete, build and lint it."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import OutputFormat, fail, printable, progress_bars, say, show, wants_table, work
from deepfake_detectors_cli.dataset_build import (
    Config,
    DataDir,
    Name,
    Options,
    build,
    open_builder,
    publish,
    read_options,
)
from deepfake_detectors_cli.options import Format, MaxPixels
from deepfake_detectors_cli.rendering import json_line
from deepfake_detectors_cli.tables import read_table

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
)


class ReportFormat(StrEnum):
    """Formats of the report."""

    html = "html"
    markdown = "markdown"


class FailOn(StrEnum):
    """Findings that make the command exit with 1."""

    error = "error"
    warning = "warning"
    never = "never"


@app.callback()
def dataset() -> None:
    """Read published datasets from their official raw files.

    \b
    Examples:
      deepfake-detectors dataset list
      deepfake-detectors dataset check celeb_df --data-dir Celeb-DF-v2
      deepfake-detectors dataset build celeb_df --data-dir Celeb-DF-v2 --output parquet/celeb_df
      deepfake-detectors dataset lint parquet/celeb_df --output lint/celeb_df
    """


@app.command("list", short_help="List the datasets that can be read.")
def list_datasets(format: Format = OutputFormat.auto) -> None:
    """List the datasets that can be read, with their configs and terms.

    \b
    Example:
      deepfake-detectors dataset list
    """
    table = read_table("datasets")
    shown = ("title", "configs", "layout_verified", "terms")
    rows = [{"name": name} | {key: table[name][key] for key in shown} for name in sorted(table)]
    _print(rows, ("name", *shown), format)


@app.command(short_help="Describe a dataset: layout, configs, terms.")
def info(name: Name, format: Format = OutputFormat.auto) -> None:
    """Describe a dataset: expected layout, configs and their options, terms, and where to get it.

    \b
    Example:
      deepfake-detectors dataset info ffpp_hdf5
    """
    from deepfake_detectors.data import dataset_info

    facts = dataset_info(name)
    if wants_table(format):
        _print([{"field": key, "value": value} for key, value in facts.items()], ("field", "value"), format)
    else:
        typer.echo(json_line(facts))


@app.command(short_help="Compare raw files with the published dataset.")
def check(
    name: Name,
    data_dir: DataDir = None,
    config: Config = None,
    option: Options = None,
    decode: Annotated[bool, typer.Option("--decode", help="Also decode every image.")] = False,
    max_pixels: MaxPixels = None,
    format: Format = OutputFormat.auto,
) -> None:
    """Count the raw files, and list what is missing, unexpected or wrong. Exits with 1 if anything is.

    \b
    Example:
      deepfake-detectors dataset check faceforensics --data-dir FaceForensics --config c23
    """
    from deepfake_detectors.data import check_dataset

    builder = open_builder(name, data_dir, config, option, max_pixels)
    result = check_dataset(builder, decode=decode)
    counts = [
        {"split": split, "label": label, "manipulation": method, "units": result.units[key], "rows": rows}
        for key, rows in sorted(result.rows.items())
        for split, label, method in [key]
    ]
    if wants_table(format):
        _print(counts, ("split", "label", "manipulation", "units", "rows"), format)
        for finding in result.findings:
            show(f"{finding.level}: {finding.message}")
    else:
        findings = [{"level": finding.level, "message": finding.message} for finding in result.findings]
        report = {"dataset": name, "config": builder.config.name, "counts": counts, "findings": findings}
        report |= {"layout_verified": builder.LAYOUT_VERIFIED, "terms": builder.TERMS}
        typer.echo(json_line(report | {"ok": result.ok}))
    if not result.ok:
        raise typer.Exit(1)


@app.command(short_help="Find shortcuts that a detector could exploit.")
def lint(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|FOLDER|CSV", help="A dataset, a folder of Parquet files or images, or a table."),
    ],
    data_dir: DataDir = None,
    config: Config = None,
    option: Options = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER|CSV", help="A second dataset: look only for images that both contain."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for lint.json, the report with histograms, and all measurements."),
    ] = None,
    format: Annotated[ReportFormat, typer.Option(help="Format of the report in --output.")] = ReportFormat.html,
    near: Annotated[
        int, typer.Option(min=0, max=15, metavar="BITS", help="Bits, of 64, by which near-duplicates may differ.")
    ] = 4,
    max_pixels: MaxPixels = None,
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="Lowest severity that makes the command exit with 1.")
    ] = FailOn.error,
) -> None:
    """Look for anything other than the forgery that separates real from fake: file formats, JPEG tables, sizes,
    metadata, duplicates, videos in two splits, unequal classes. Also measure how well metadata alone predicts the
    label.

    \b
    Examples:
      deepfake-detectors dataset lint ddvqa --data-dir ddvqa --config c23 --output lint/ddvqa
      deepfake-detectors dataset lint parquet/ddvqa/c40 --output lint/c40 --format markdown
      deepfake-detectors dataset lint image_folder --config nature_ai --data-dir GenImage
      deepfake-detectors dataset lint parquet/train --against parquet/test

    Prints the findings: one line each on a terminal, one JSON object in a pipe. Exits with 1 if there is an error.
    """
    try:
        from deepfake_detectors.data.lint import lint_dataset, open_source
    except ImportError as error:
        fail(f"Linting needs {error.name}, which is not installed: pip install 'deepfake-detectors[lint]'")
    source = open_source(name, data_dir, config, read_options(option), max_pixels)
    other = None if against is None else open_source(against, max_pixels=max_pixels)
    totals = [source.total] if other is None else [source.total, other.total]
    total = None if None in totals else sum(filter(None, totals))
    with work(), progress_bars() as bars:
        task = bars.add_task("pictures", total=total)
        result = lint_dataset(
            source,
            against=other,
            output=output,
            format=format.value,
            near=near,
            progress=lambda rows: bars.advance(task, rows),
        )
    if wants_table(OutputFormat.auto):
        for finding in result.findings:
            show(f"{finding.level}: {finding.message}")
    else:
        typer.echo(json_line(result.to_dict()))
    if output is not None:
        say(f"Wrote the report to {output}.")
    levels = {"error": {"error"}, "warning": {"error", "warning"}, "never": set()}[fail_on]
    if any(finding.level in levels for finding in result.findings):
        raise typer.Exit(1)


app.command(short_help="Write a dataset as Parquet with embedded images.")(build)
app.command(short_help="Push a dataset to the Hub as Parquet, with a card.")(publish)


def _print(rows: list[dict[str, Any]], columns: tuple[str, ...], format: OutputFormat) -> None:
    if not wants_table(format):
        for row in rows:
            typer.echo(json_line(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(_in_words(row[column]))) for column in columns))
    Console(file=sys.stdout).print(table)


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
