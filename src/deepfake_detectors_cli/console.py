"""Output and exit codes of a command: data goes to stdout, everything else to stderr, and an error is one line."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "LIBRARY_ERRORS",
    "OutputFormat",
    "WorkFailed",
    "as_typed",
    "fail",
    "hide_loading_bars",
    "make_room_for_workers",
    "printable",
    "progress_bars",
    "say",
    "show",
    "track",
    "wants_table",
    "work",
]

Item = TypeVar("Item")

# What the library raises for bad input, or for failures of the system.
LIBRARY_ERRORS = (ValueError, OSError, ImportError)


# Control characters, and lone surrogates, which stand for bytes that are not UTF-8.
HIDDEN = ("Cc", "Cs")
# These reverse the text direction, which can make one name look like another.
TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class OutputFormat(StrEnum):
    """Output formats of rows."""

    auto = "auto"
    table = "table"
    json = "json"


def wants_table(format: OutputFormat) -> bool:
    """Return whether to print a table: `auto` means a table on a terminal and JSON in a pipe."""
    return sys.stdout.isatty() if format is OutputFormat.auto else format is OutputFormat.table


def say(message: str) -> None:
    """Write a note to stderr."""
    typer.echo(printable(message), err=True)


def show(message: str) -> None:
    """Write a line of the result to stdout."""
    typer.echo(printable(message))


def printable(text: str) -> str:
    """Return the text with everything escaped that could control the terminal.

    Control and direction characters, and bytes that are not text, become escapes such as `\\x1b`. Line breaks and tabs
    stay.
    """
    return "".join(
        ascii(sign)[1:-1] if sign in TURNING or (sign not in "\n\t" and unicodedata.category(sign) in HIDDEN) else sign
        for sign in text
    )


# ---- errors ---------------------------------------------------------------------------------------------------------


def fail(error: Exception | str, code: int = 2) -> NoReturn:
    """Stop with one line on stderr and no traceback.

    Args:
        error: what went wrong.
        code: 2 if the input was wrong, 1 if the work itself failed.
    """
    say(f"Error: {_one_line(str(error))}")
    raise typer.Exit(code)


class WorkFailed(Exception):
    """Raised to end a command with exit code 1.

    Args:
        reason: the error that the library raised.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextmanager
def work() -> Iterator[None]:
    """Mark the part of a command whose errors are failures of the work: they exit with 1 instead of 2.

    A model that runs out of memory or contradicts its own weights raises `RuntimeError`, so that is caught here as
    well.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):  # the first two are `RuntimeError`s
        raise
    except (*LIBRARY_ERRORS, RuntimeError) as error:
        raise WorkFailed(error) from error


def as_typed(error: Exception, parameters: Sequence[Any]) -> str:
    """Return the message of a library error with command-line flags in place of parameters.

    A parameter for which the command has an option is replaced by that option: "`data_dir`",
    "explain=True", or a name at the start of the message. For an official checkpoint that has not been converted, the
    message includes the command that converts it.

    Args:
        error: the error that the library raised.
        parameters: those of the command that ran.
    """
    flags = {param.name: max(param.opts, key=len) for param in parameters if param.param_type_name == "option"}

    def flag(match: re.Match[str]) -> str:
        return flags.get(match["name"], match[0])

    text = _one_line(str(error))
    for pattern in (r"`(?P<name>\w+)`", r"`?\b(?P<name>\w+)=True\b`?", r"^(?P<name>[a-z]\w*)\b(?= (is|'))"):
        text = re.sub(pattern, flag, text)
    cause: Any = error
    while cause is not None:
        # Compared by name, because its module may not have been imported.
        if type(cause).__name__ == "UnconvertedCheckpointError":
            command = f"deepfake-detectors convert {cause.family or 'FAMILY'} --source {cause.source} --output DIR"
            return _one_line(f"{cause.fault} Convert it first: {command}")
        cause = cause.__cause__
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())


# ---- progress -------------------------------------------------------------------------------------------------------


def progress_bars() -> Progress:
    """Return progress bars on stderr, with counts and time remaining, that disappear when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(file=sys.stderr), transient=True)


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield the items, with a progress bar if stderr is a terminal.

    Args:
        items: anything iterable.
        description: the label of the bar, such as `"Scoring"`.
        total: number of items.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    with progress_bars() as bars:
        yield from bars.track(items, total=total, description=description)


def make_room_for_workers(num_workers: int) -> None:
    """Let idle threads of PyTorch sleep, not spin, on the cores on which workers decode.

    To be called before PyTorch is loaded, which reads this; what the environment says already counts. Numbers do not
    depend on it. On two cores, two workers were 1.5 times as fast as none without it, and 1.9 times with it.
    """
    if num_workers:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def hide_loading_bars() -> None:
    """Hide the progress bars of loading weights, which takes only seconds; downloads keep theirs on a terminal."""
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    if sys.stderr.isatty() and not HF_HUB_DISABLE_PROGRESS_BARS:
        enable_progress_bars()
