"""`deepfake-detectors dataset build` and `publish`, and what all commands of `dataset` share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import fail, progress_bars, say, work
from deepfake_detectors_cli.options import MaxPixels, parse_option

__all__ = ["Config", "DataDir", "Name", "Options", "build", "open_builder", "publish", "read_options"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="A data set, as `dataset list` prints it.")]
DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Its raw files. [default: the folder NAME in the directory DEEPFAKE_DATA]"),
]
Config = Annotated[
    str | None, typer.Option(metavar="NAME", help="Config of the builder. [default: the builder's own]")
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="A field of the config, its value as JSON or text; repeatable."
    ),
]


def read_options(texts: list[str] | None) -> dict[str, Any]:
    """Return `KEY=VALUE` pairs; ends the command at a text of another form."""
    return dict(parse_option(text) for text in texts or [])


def open_builder(
    name: str, data_dir: Path | None, config: str | None, options: list[str] | None, max_pixels: int | None
) -> Any:
    """Return the builder, which keeps quiet about what it finds."""
    from deepfake_detectors.data import registry

    builder = registry.open_builder(name, data_dir, config, read_options(options), max_pixels)
    builder.log_findings = False  # they are printed in full at the end
    return builder


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
    max_pixels: MaxPixels = None,
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
    builder = open_builder(name, data_dir, config, option, max_pixels)
    _show_terms(name, accept_terms)
    from deepfake_detectors.data import build_dataset

    with work(), _split_bars() as advance:
        result = build_dataset(builder, output, overwrite=overwrite, shard_size=shard_size, progress=advance)
    for finding in result.findings:
        say(f"{finding.level}: {finding.message}")
    for split, rows in result.rows.items():
        typer.echo(json.dumps({"split": split, "rows": rows, "built": split in result.built}))
    say(f"Wrote {result.folder}. Load it: datasets.load_dataset({str(result.folder)!r})")


@contextmanager
def _split_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows a bar for each split: split, rows since the last call, rows expected."""
    tasks: dict[str, Any] = {}
    with progress_bars() as bars:

        def advance(split: str, rows: int, expected: int) -> None:
            if split not in tasks:
                tasks[split] = bars.add_task(split, total=expected)
            bars.advance(tasks[split], rows)

        yield advance


def at_terminal() -> bool:
    """Return whether somebody can answer a question."""
    return sys.stdin.isatty()


def _show_terms(name: str, accepted: bool) -> None:
    """Show the terms. Who runs this owns a copy already and scripts must not hang, so only a terminal is asked."""
    from deepfake_detectors.data.registry import DATASETS

    row = DATASETS[name]
    say(f"Terms of {row.title}: {row.terms}")
    if not row.research_only or accepted:
        return
    if not at_terminal():
        say("By building you use this data under these terms (--accept-terms says that you do).")
    elif not typer.confirm("Do you accept these terms?", err=True):
        fail("The terms were not accepted; nothing was written.", code=1)


def publish(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FOLDER", help="A data set, or the folder that `dataset build` wrote.")
    ],
    repo: Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help="Repository of the data set.")],
    data_dir: DataDir = None,
    config: Config = None,
    option: Options = None,
    build_dir: Annotated[
        Path | None,
        typer.Option(
            "--build-dir", metavar="DIR", help="Where NAME is built, and kept. [default: a temporary folder]"
        ),
    ] = None,
    dry_run: Annotated[
        Path | None, typer.Option("--dry-run", metavar="DIR", help="Write what would be pushed here; send nothing.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a private repository, or require that it is.")
    ] = False,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="You have the right to publish research-only data.")
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="Replace the data of a repository that exists.")] = False,
    lint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The lint.json of `dataset lint`, for the card.")
    ] = None,
) -> None:
    """Publish a data set as Parquet with its pictures inside and a card.

    Data for research only goes to a private repository, unless --accept-terms says that you may publish it.

    \b
    Examples:
      deepfake-detectors dataset publish parquet/ddvqa --repo me/ddvqa --dry-run look-first
      deepfake-detectors dataset publish parquet/ddvqa --repo me/ddvqa --private --lint lint/ddvqa/lint.json
      deepfake-detectors dataset publish image_folder --config real_fake --data-dir mine --repo me/mine
    """
    from deepfake_detectors.data.registry import DATASETS
    from deepfake_detectors.hub.datasets import publish_dataset

    if name in DATASETS:
        say(f"Terms of {DATASETS[name].title}: {DATASETS[name].terms}")
    elif data_dir is not None or config is not None or option:
        fail(f"{name} is a folder; --data-dir, --config and --option are for a data set given by name.")
    with work(), _split_bars() as advance:
        place = publish_dataset(
            name,
            repo,
            data_dir=data_dir,
            config=config,
            options=read_options(option),
            build_dir=build_dir,
            private=private,
            accept_terms=accept_terms,
            update=update,
            lint=lint,
            dry_run=dry_run,
            progress=advance,
        )
    typer.echo(place)
    if dry_run is not None:
        say(f"Nothing was sent. Load it: datasets.load_dataset({str(dry_run)!r})")
