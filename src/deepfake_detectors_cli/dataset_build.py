"""`deepfake-detectors dataset build` and `publish`, and what the `dataset` commands share."""

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

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a dataset, as printed by `dataset list`.")]
DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder with its raw files. [default: $DEEPFAKE_DATA/NAME]"),
]
Config = Annotated[
    str | None, typer.Option(metavar="NAME", help="Config of the builder. [default: the builder's own]")
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="A field of the config, with its value as JSON or text; repeatable."
    ),
]


def read_options(texts: list[str] | None) -> dict[str, Any]:
    """Return `KEY=VALUE` pairs; end the command if the text has another form."""
    return dict(parse_option(text) for text in texts or [])


def open_builder(
    name: str, data_dir: Path | None, config: str | None, options: list[str] | None, max_pixels: int | None
) -> Any:
    """Return the builder without letting it log its findings."""
    from deepfake_detectors.data import registry

    builder = registry.open_builder(name, data_dir, config, read_options(options), max_pixels)
    builder.log_findings = False  # the findings are printed in full at the end
    return builder


def build(
    name: Name,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; the config becomes a subfolder.")],
    data_dir: DataDir = None,
    config: Config = None,
    option: Options = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Rebuild splits that are already finished.")] = False,
    shard_size: Annotated[
        int, typer.Option("--shard-size", metavar="MB", min=1, help="Maximum size of a file.")
    ] = 500,
    max_pixels: MaxPixels = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the terms of the data without a prompt.")
    ] = False,
) -> None:
    """Write a dataset as Parquet with embedded images, in a folder that `datasets.load_dataset` reads.

    \b
    Examples:
      deepfake-detectors dataset build ddvqa --data-dir ddvqa --output parquet/ddvqa
      deepfake-detectors dataset build image_folder --config real_fake --data-dir mine --output out

    An interrupted build continues at the first unfinished split. The terms of the data are shown first. On a terminal,
    research-only terms must be accepted at the prompt or with --accept-terms.
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
    """Yield a function that shows a bar per split; it takes split, rows since the last call, rows expected."""
    tasks: dict[str, Any] = {}
    with progress_bars() as bars:

        def advance(split: str, rows: int, expected: int) -> None:
            if split not in tasks:
                tasks[split] = bars.add_task(split, total=expected)
            bars.advance(tasks[split], rows)

        yield advance


def at_terminal() -> bool:
    """Return whether a user can answer a prompt."""
    return sys.stdin.isatty()


def _show_terms(name: str, accepted: bool) -> None:
    """Show the terms, and ask for consent on a terminal only: scripts must not hang."""
    from deepfake_detectors.data.registry import DATASETS

    row = DATASETS[name]
    say(f"Terms of {row.title}: {row.terms}")
    if not row.research_only or accepted:
        return
    if not at_terminal():
        say(
            "By building this dataset you use the data under these terms (--accept-terms confirms that you accept "
            "them)."
        )
    elif not typer.confirm("Do you accept these terms?", err=True):
        fail("The terms were not accepted; nothing was written.", code=1)


def publish(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FOLDER", help="A dataset, or a folder written by `dataset build`.")
    ],
    repo: Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help="Dataset repository on the Hub.")],
    data_dir: DataDir = None,
    config: Config = None,
    option: Options = None,
    build_dir: Annotated[
        Path | None,
        typer.Option(
            "--build-dir", metavar="DIR", help="Folder in which to build and keep NAME. [default: a temporary folder]"
        ),
    ] = None,
    dry_run: Annotated[
        Path | None,
        typer.Option("--dry-run", metavar="DIR", help="Write what would be pushed to this folder, and send nothing."),
    ] = None,
    private: Annotated[
        bool,
        typer.Option("--private", help="Create a private repository, or require that the existing one is private."),
    ] = False,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Confirm that you may publish research-only data.")
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="Replace the data in an existing repository.")] = False,
    lint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="lint.json written by `dataset lint`, for the card.")
    ] = None,
) -> None:
    """Publish a dataset as Parquet with embedded images and a card.

    Research-only data goes to a private repository, unless you confirm with --accept-terms that you may publish it.

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
        fail(f"{name} is a folder; --data-dir, --config and --option apply only to a dataset given by name.")
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
