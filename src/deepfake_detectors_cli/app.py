"""The command `deepfake-detectors`: which sub-commands there are, and how every one of them ends.

A sub-command is imported when it is named, and the library inside the sub-command, so that `--help` is quick.
"""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from importlib.metadata import version as package_version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from deepfake_detectors_cli.console import LIBRARY_ERRORS, WorkFailed, as_typed, fail

__all__ = ["COMMANDS", "app", "main"]

# Name -> where it is (`module:function`, or `module:app` where it has sub-commands of its own), and what it does.
COMMANDS = {
    "detect": ("deepfake_detectors_cli.detect:detect", "Score images for manipulation."),
    "examine": ("deepfake_detectors_cli.examine:examine", "Examine pictures and videos, with a sheet to send on."),
    "replay": ("deepfake_detectors_cli.examine:replay", "Run an examination again and compare the numbers."),
    "score": ("deepfake_detectors_cli.score:score", "Score any number of images into Parquet files."),
    "app": ("deepfake_detectors_cli.web:app", "Start the page in a browser."),
    "info": ("deepfake_detectors_cli.info:info", "Describe a detector, or list what there is."),
    "evaluate": ("deepfake_detectors_cli.evaluate:evaluate", "Measure how good a detector is."),
    "benchmark": ("deepfake_detectors_cli.benchmark:benchmark", "Compare detectors on data sets."),
    "convert": ("deepfake_detectors_cli.convert:convert", "Turn official weights into a folder that loads."),
    "merge": ("deepfake_detectors_cli.convert:merge", "Add trained deltas to their base."),
    "export": ("deepfake_detectors_cli.convert:export", "Export a detector to ONNX, for CPUs."),
    "publish": ("deepfake_detectors_cli.publish:publish", "Push a detector and its card to the Hub."),
    "dataset": ("deepfake_detectors_cli.dataset:app", "List, check, build, lint and publish datasets."),
}


class Command(TyperCommand):
    """A command that ends in one line, never in a traceback, whatever the library raises."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; end with 1 where its work failed, and with 2 where it was given something wrong."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of a pipe left, which is fine
            raise
        except WorkFailed as error:
            fail(as_typed(error.reason, self.params), code=1)
        except LIBRARY_ERRORS as error:
            fail(as_typed(error, self.params))
        except Exception as error:
            # typer's own ways to end, which have no common class in all its versions
            if type(error).__module__.startswith(("typer", "click")) or os.environ.get("DEEPFAKE_DETECTORS_DEBUG"):
                raise
            fail(f"Unexpected {type(error).__name__}: {error} (DEEPFAKE_DETECTORS_DEBUG=1 shows where).", code=1)


class Commands(TyperGroup):
    """The sub-commands of `COMMANDS`; one is imported when it is run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, short_help) in COMMANDS.items():
            self.commands[name] = TyperCommand(name, short_help=short_help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name of the sub-command, the sub-command itself and its arguments."""
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, placeholder and _load(str(name)), rest


def _load(name: str) -> Any:
    module, _, attribute = COMMANDS[name][0].partition(":")
    target = getattr(import_module(module), attribute)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    if not isinstance(target, typer.Typer):
        alone.command(name, cls=Command)(target)
        return get_command(alone)
    for command in target.registered_commands:
        command.cls = Command
    alone.add_typer(target, name=name)
    return get_command(alone).commands[name]  # type: ignore[attr-defined]


# Plain help: with rich markup the examples would be re-flowed.
app = typer.Typer(
    name="deepfake-detectors",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(package_version("deepfake-detectors"))
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Score images with published deepfake detectors, measure the detectors, and prepare their weights and data.

    \b
    Examples:
      deepfake-detectors detect face.jpg
      deepfake-detectors info
      deepfake-detectors convert m2f2_det --source M2F2_Det_densenet121.pth --source vision_tower.pth --output m2f2

    The exit code is 0 on success, 1 if an input could not be read or a model failed, and 2 if the command was wrong.
    """


def main() -> None:
    """Run the command; the console script and `python -m deepfake_detectors_cli` call it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a sign that the terminal or pipe does not have ends no run
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="deepfake-detectors")
    finally:
        _drop_unwritten()


def _drop_unwritten() -> None:
    """Where stdout is full or gone, forget what is left for it: the interpreter would try again, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
