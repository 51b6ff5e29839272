"""The command and its sub-commands. Nothing here imports torch: `--help` must be quick."""

from typing import Annotated

import typer

from deepfake_detectors_cli.convert import convert
from deepfake_detectors_cli.dataset import app as dataset
from deepfake_detectors_cli.detect import detect
from deepfake_detectors_cli.evaluate import evaluate
from deepfake_detectors_cli.info import info
from deepfake_detectors_cli.merge import merge
from deepfake_detectors_cli.publish import publish

__all__ = ["app", "main"]

# Plain help: with rich markup the examples would be re-flowed.
app = typer.Typer(
    name="deepfake-detectors",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(short_help="Judge pictures.")(detect)
app.command(short_help="Describe a detector.")(info)
app.command(short_help="Measure a detector.")(evaluate)
app.command(short_help="Turn official weights into a folder that loads.")(convert)
app.command(short_help="Add trained deltas to their base.")(merge)
app.command(short_help="Push a detector and its card to the Hub.")(publish)
app.add_typer(dataset, name="dataset", short_help="Read published data sets: list, info, check, build.")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("deepfake-detectors"))
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Judge pictures with published deepfake detectors, and turn official weights into folders that load.

    \b
    Examples:
      deepfake-detectors detect face.jpg
      deepfake-detectors info
      deepfake-detectors convert m2f2_det --source M2F2_Det_densenet121.pth --source vision_tower.pth --output m2f2
    """


def main() -> None:
    """Entry point of the console script."""
    app()
