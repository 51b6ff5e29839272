"""`deepfake-detectors dataset publish`: a data set as Parquet with a card, on the Hub or in a folder to look at."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from deepfake_detectors_cli.console import fail, say
from deepfake_detectors_cli.dataset_building import build_parquet, open_builder
from deepfake_detectors_cli.dataset_options import Config, DataDir, Options

__all__ = ["publish"]


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
    from deepfake_detectors.data.registry import BUILDERS, builder_class
    from deepfake_detectors.hub.datasets import check_publication, publish_dataset

    try:
        if dry_run is None and name in BUILDERS:  # what can be known is said before anything is built
            check_publication(name, repo, private=private, accept_terms=accept_terms, update=update)
        with _built(name, build_dir) as folder:
            if name in BUILDERS:
                builder = open_builder(name, data_dir, config, option)
                say(f"Terms of {builder_class(name).NAME}: {builder.info.license}")
                build_parquet(builder, folder)
                folder = folder / builder.config.name
            elif data_dir is not None or config is not None or option:
                fail(f"{name} is a folder; --data-dir, --config and --option are for a data set given by name.")
            place = publish_dataset(
                folder,
                repo,
                private=private,
                accept_terms=accept_terms,
                update=update,
                lint=lint,
                dry_run=dry_run,
            )
    except (ValueError, OSError, ImportError) as error:
        fail(error, code=1)
    typer.echo(place)
    if dry_run is not None:
        say(f"Nothing was sent. Load it: datasets.load_dataset({str(dry_run)!r})")


@contextmanager
def _built(name: str, build_dir: Path | None) -> Iterator[Path]:
    from deepfake_detectors.data.registry import BUILDERS

    if name not in BUILDERS:
        yield Path(name)
    elif build_dir is not None:
        yield build_dir
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
