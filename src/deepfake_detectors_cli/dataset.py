"""`deepfake-detectors dataset`: which data sets can be read, what they are, is a copy whole, turn it into Parquet."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import OutputFormat, fail, say, wants_table
from deepfake_detectors_cli.dataset_building import build_parquet, open_builder
from deepfake_detectors_cli.dataset_lint import lint
from deepfake_detectors_cli.dataset_options import Config, DataDir, Name, Options
from deepfake_detectors_cli.dataset_publish import publish
from deepfake_detectors_cli.options import Format

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
)
app.command(short_help="Find what would let a detector cheat.")(lint)
app.command(short_help="Push a data set as Parquet with a card.")(publish)


@app.callback()
def dataset() -> None:
    """Read published data sets from their official raw files.

    \b
    Examples:
      deepfake-detectors dataset list
      deepfake-detectors dataset check celeb_df --data-dir Celeb-DF-v2
      deepfake-detectors dataset build celeb_df --data-dir Celeb-DF-v2 --output parquet/celeb_df
      deepfake-detectors dataset lint parquet/celeb_df --output lint/celeb_df
    """


@app.command("list", short_help="Name the data sets that can be read.")
def list_datasets(format: Format = OutputFormat.auto) -> None:
    """Name the data sets that can be read, with their configs and terms.

    \b
    Example:
      deepfake-detectors dataset list
    """
    from deepfake_detectors.data.registry import BUILDERS

    rows = [_facts(name) for name in sorted(BUILDERS)]
    shown = ("name", "title", "configs", "layout_verified", "terms")
    _print([{key: row[key] for key in shown} for row in rows], shown, format)


@app.command(short_help="Describe a data set: layout, configs, terms.")
def info(name: Name, format: Format = OutputFormat.auto) -> None:
    """Describe a data set: the layout it is expected in, configs and their options, terms, where to get it.

    \b
    Example:
      deepfake-detectors dataset info ffpp_hdf5
    """
    from deepfake_detectors.data.parquet import builder_class

    facts = _facts(name)
    facts["published_counts"] = _published_counts(builder_class(name))
    if wants_table(format):
        _print([{"field": key, "value": value} for key, value in facts.items()], ("field", "value"), format)
    else:
        typer.echo(json.dumps(facts, ensure_ascii=False))


@app.command(short_help="Compare raw files with what is published.")
def check(
    name: Name,
    data_dir: DataDir = None,
    config: Config = None,
    option: Options = None,
    decode: Annotated[bool, typer.Option("--decode", help="Also decode every picture.")] = False,
    format: Format = OutputFormat.auto,
) -> None:
    """Count what is there, and list what is missing, extra or wrong. Ends with 1 if something is.

    \b
    Example:
      deepfake-detectors dataset check faceforensics --data-dir FaceForensics --config c23
    """
    from deepfake_detectors.data.parquet import check as check_files

    builder = open_builder(name, data_dir, config, option)
    result = check_files(builder, decode)
    counts = [
        {"split": split, "label": label, "manipulation": method, "units": result.units[key], "rows": rows}
        for key, rows in sorted(result.rows.items())
        for split, label, method in [key]
    ]
    if wants_table(format):
        _print(counts, ("split", "label", "manipulation", "units", "rows"), format)
        for level, message in result.findings:
            typer.echo(f"{level}: {message}")
    else:
        findings = [{"level": level, "message": message} for level, message in result.findings]
        report = {"dataset": name, "config": builder.config.name, "counts": counts, "findings": findings}
        report |= {"layout_verified": builder.LAYOUT_VERIFIED, "terms": builder.TERMS}
        typer.echo(json.dumps(report | {"ok": result.ok}, ensure_ascii=False))
    if not result.ok:
        raise typer.Exit(1)


@app.command(short_help="Write a data set as Parquet with its pictures inside.")
def build(
    name: Name,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; the config becomes a folder in it.")],
    data_dir: DataDir = None,
    config: Config = None,
    option: Options = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Build finished splits again.")] = False,
    shard_size: Annotated[
        int, typer.Option("--shard-size", metavar="MB", min=1, help="Size at which a file ends.")
    ] = 500,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the terms without being asked on a terminal.")
    ] = False,
) -> None:
    """Write a data set as Parquet with its pictures inside; `datasets.load_dataset` reads the folder.

    \b
    Examples:
      deepfake-detectors dataset build ddvqa --data-dir ddvqa --output parquet/ddvqa
      deepfake-detectors dataset build image_folder --config real_fake --data-dir mine --output out

    An interrupted build goes on at the first split that was not finished. The terms of the data are shown first; on a
    terminal, terms that allow research only are to be accepted there or by --accept-terms.
    """
    builder = open_builder(name, data_dir, config, option)
    _show_terms(type(builder), accept_terms)
    done, built = build_parquet(builder, output, overwrite, shard_size)
    for finding in getattr(builder, "findings", []):
        say(f"{finding.level}: {finding.message}")
    for split, rows in done.items():
        typer.echo(json.dumps({"split": split, "rows": rows, "built": split in built}))
    say(f"Wrote {output / builder.config.name}. Load it: datasets.load_dataset({str(output / builder.config.name)!r})")


def at_terminal() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin.isatty()


def _show_terms(kind: Any, accepted: bool) -> None:
    """Who runs this owns a copy already and scripts must not hang, so only a person at a terminal is asked."""
    say(f"Terms of {_title(kind)}: {kind.TERMS}")
    if not kind.RESEARCH_ONLY or accepted:
        return
    if not at_terminal():
        say("By building you use this data under these terms (--accept-terms says that you do).")
    elif not typer.confirm("Do you accept these terms?", err=True):
        fail("The terms were not accepted; nothing was written.", code=1)


def _title(kind: Any) -> str:
    return kind.NAME or kind.__name__


def _facts(name: str) -> dict[str, Any]:
    from deepfake_detectors.data.parquet import builder_class

    try:
        kind = builder_class(name)
    except (ValueError, ImportError) as error:
        fail(error)
    inherited = {"name", "version", "data_dir", "data_files", "description"}
    fields = dataclasses.fields(kind.BUILDER_CONFIG_CLASS)
    return {
        "name": name,
        "title": _title(kind),
        "configs": [config.name for config in kind.BUILDER_CONFIGS],
        "default_config": kind.DEFAULT_CONFIG_NAME,
        "options": [item.name for item in fields if item.name not in inherited],
        "layout": kind.LAYOUT,
        "layout_verified": kind.LAYOUT_VERIFIED,
        "terms": kind.TERMS,
        "research_only": kind.RESEARCH_ONLY,
        "homepage": kind.HOMEPAGE,
        "get_it": kind.REMEDY,
        "version": str(kind.VERSION),
    }


def _published_counts(kind: Any) -> dict[str, Any]:
    """Per config, split and class; without the configs that need options and those of which nothing is published."""
    counts = {}
    for config in kind.BUILDER_CONFIGS:
        try:
            builder = kind(config_name=config.name)
        except ValueError:  # it cannot be opened without options
            continue
        known = {**builder.likely_counts(), **builder.official_counts()}
        if known:
            counts[config.name] = known
    return counts


def _print(rows: list[dict[str, Any]], columns: tuple[str, ...], format: OutputFormat) -> None:
    if not wants_table(format):
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_in_words(row[column])) for column in columns))
    Console(file=sys.stdout).print(table)


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
