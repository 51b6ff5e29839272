"""The command `deepfake-detectors`: its sub-commands and their exit codes.

A sub-command is imported only when it is named, and imports the library only when it runs. This keeps `--help` fast.
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

# Name -> location (`module:function`, or `module:app` if it has sub-commands of its own) and short help.
COMMANDS = {
    "detect": ("deepfake_detectors_cli.detect:detect", "Score images for manipulation."),
    "examine": ("deepfake_detectors_cli.examine:examine", "Examine images and videos and write a sheet to share."),
    "replay": ("deepfake_detectors_cli.examine:replay", "Repeat an examination and compare the numbers."),
    "score": ("deepfake_detectors_cli.score:score", "Score any number of images into Parquet files."),
    "chat": ("deepfake_detectors_cli.chat:chat", "Ask a detector about an image, in several turns."),
    "app": ("deepfake_detectors_cli.web:app", "Serve the web page."),
    "info": ("deepfake_detectors_cli.info:info", "Describe a detector, or list all of them."),
    "evaluate": ("deepfake_detectors_cli.evaluate:evaluate", "Measure the accuracy of a detector."),
    "benchmark": ("deepfake_detectors_cli.benchmark:benchmark", "Compare detectors on datasets."),
    "convert": ("deepfake_detectors_cli.convert:convert", "Convert official weights to a checkpoint folder."),
    "merge": ("deepfake_detectors_cli.convert:merge", "Merge trained deltas into their base."),
    "export": ("deepfake_detectors_cli.convert:export", "Export a detector to ONNX for CPUs."),
    "publish": ("deepfake_detectors_cli.publish:publish", "Push a detector and its card to the Hub."),
    "dataset": ("deepfake_detectors_cli.dataset:app", "List, check, build, lint and publish datasets."),
}


class Command(TyperCommand):
    """A command that reports every error as one line, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exit with 1 if the work failed and with 2 if the input was wrong."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever read the pipe has closed it, which is fine
            raise
        except WorkFailed as error:
            fail(as_typed(error.reason, self.params), code=1)
        except LIBRARY_ERRORS as error:
            fail(as_typed(error, self.params))
        except Exception as error:
            # typer's own ways to exit; not all versions give them a common class
            if type(error).__module__.startswith(("typer", "click")) or os.environ.get("DEEPFAKE_DETECTORS_DEBUG"):
                raise
            fail(f"Unexpected {type(error).__name__}: {error} (set DEEPFAKE_DETECTORS_DEBUG=1 to see where).", code=1)


class Commands(TyperGroup):
    """The sub-commands of `COMMANDS`, each imported when it is run."""

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


# Plain help: rich markup would reflow the examples.
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
        # A character that the terminal or pipe cannot encode must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="deepfake-detectors")
    finally:
        _drop_unwritten()


def _drop_unwritten() -> None:
    """Discard unwritten output if stdout is full or closed: the interpreter would retry and print a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
