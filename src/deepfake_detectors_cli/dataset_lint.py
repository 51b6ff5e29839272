"""`deepfake-detectors dataset lint`: what would let a detector cheat on a data set."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deepfake_detectors_cli.console import OutputFormat, fail, progress_bars, say, wants_table
from deepfake_detectors_cli.dataset_options import Config, DataDir, Options, read_options

__all__ = ["lint"]


class ReportFormat(StrEnum):
    """How the report is written."""

    html = "html"
    markdown = "markdown"


class FailOn(StrEnum):
    """Which findings end the command with 1."""

    error = "error"
    warning = "warning"
    never = "never"


def lint(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FOLDER", help="A data set, or a folder of Parquet or of pictures.")
    ],
    data_dir: DataDir = None,
    config: Config = None,
    option: Options = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write lint.json, the report with histograms, and all measurements here."),
    ] = None,
    format: Annotated[ReportFormat, typer.Option(help="Of the report in --output.")] = ReportFormat.html,
    near: Annotated[
        int, typer.Option(min=0, max=15, metavar="BITS", help="Of 64: how far near-duplicates may differ.")
    ] = 4,
    fail_on: Annotated[FailOn, typer.Option("--fail-on", help="The least finding that ends with 1.")] = FailOn.error,
) -> None:
    """Look for what gives real and fake away other than the forgery: file formats, JPEG tables, sizes, metadata,
    duplicates, videos in two splits, unequal classes; and measure how far metadata alone gets.

    \b
    Examples:
      deepfake-detectors dataset lint ddvqa --data-dir ddvqa --config c23 --output lint/ddvqa
      deepfake-detectors dataset lint parquet/ddvqa/c40 --output lint/c40 --format markdown
      deepfake-detectors dataset lint image_folder --config nature_ai --data-dir GenImage

    Prints the findings: a line each on a terminal, one JSON object in a pipe. Ends with 1 if there is an error.
    """
    try:
        from deepfake_detectors.data.lint import lint as lint_pictures
        from deepfake_detectors.data.lint import open_source
        from deepfake_detectors.data.lint.report import write_report
    except ImportError as error:
        fail(f"Linting needs {error.name}, which is not installed: pip install 'deepfake-detectors[lint]'")
    try:
        source = open_source(name, data_dir, config, read_options(option))
    except (ValueError, OSError, ImportError) as error:
        fail(error)
    with progress_bars() as bars:
        task = bars.add_task("pictures", total=source.total)
        try:
            result = lint_pictures(source, near, lambda rows: bars.advance(task, rows))
            if output is not None:
                report = write_report(result, output, format.value)
        except (ValueError, OSError, ImportError) as error:
            fail(error, code=1)
    if wants_table(OutputFormat.auto):
        for finding in result.findings:
            typer.echo(f"{finding.level}: {finding.message}")
    else:
        typer.echo(json.dumps(result.to_dict(), ensure_ascii=False))
    if output is not None:
        say(f"Wrote {report}.")
    levels = {"error": {"error"}, "warning": {"error", "warning"}, "never": set()}[fail_on]
    if any(finding.level in levels for finding in result.findings):
        raise typer.Exit(1)
