"""What a command says and how it ends: data to stdout, everything else to stderr, one line for an error."""

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

# What the library raises about what it was given, or about what it met.
LIBRARY_ERRORS = (ValueError, OSError, ImportError)


# Control signs, and halves of pairs, which stand for bytes that are not UTF-8.
HIDDEN = ("Cc", "Cs")
# They turn the direction of what follows, so that a name can look like another.
TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class OutputFormat(StrEnum):
    """How rows are written."""

    auto = "auto"
    table = "table"
    json = "json"


def wants_table(format: OutputFormat) -> bool:
    """Return whether to print for a reader: `auto` means a table on a terminal and JSON in a pipe."""
    return sys.stdout.isatty() if format is OutputFormat.auto else format is OutputFormat.table


def say(message: str) -> None:
    """Write a remark for the reader to stderr."""
    typer.echo(printable(message), err=True)


def show(message: str) -> None:
    """Write a line of the answer to stdout."""
    typer.echo(printable(message))


def printable(text: str) -> str:
    """Return a text that cannot command the terminal.

    Control and direction signs, and bytes that are not text, are written as `\\x1b`. Line ends and tabs stay.
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
        code: 2 where the command was given something it cannot use, 1 where the work itself failed.
    """
    say(f"Error: {_one_line(str(error))}")
    raise typer.Exit(code)


class WorkFailed(Exception):
    """Ends a command with exit code 1.

    Args:
        reason: what the library raised.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextmanager
def work() -> Iterator[None]:
    """Mark the part of a command whose errors are not about the command: they end it with 1 instead of 2.

    A model that runs out of memory or contradicts its own weights raises `RuntimeError`, so that is caught here, too.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):  # the first two are `RuntimeError`s
        raise
    except (*LIBRARY_ERRORS, RuntimeError) as error:
        raise WorkFailed(error) from error


def as_typed(error: Exception, parameters: Sequence[Any]) -> str:
    """Return the message of an error of the library in the words of the command line.

    Parameters of the library that the command has an option for are written as that option: "`data_dir`",
    "explain=True", and a name that begins the message. An official checkpoint that was never converted gets the
    command that converts it.

    Args:
        error: what the library raised.
        parameters: of the command that ran.
    """
    flags = {param.name: max(param.opts, key=len) for param in parameters if param.param_type_name == "option"}

    def flag(match: re.Match[str]) -> str:
        return flags.get(match["name"], match[0])

    text = _one_line(str(error))
    for pattern in (r"`(?P<name>\w+)`", r"`?\b(?P<name>\w+)=True\b`?", r"^(?P<name>[a-z]\w*)\b(?= (is|'))"):
        text = re.sub(pattern, flag, text)
    cause: Any = error
    while cause is not None:
        if type(cause).__name__ == "UnconvertedCheckpointError":  # by name: its module may not be imported at all
            command = f"deepfake-detectors convert {cause.family or 'FAMILY'} --source {cause.source} --output DIR"
            return _one_line(f"{cause.fault} Convert it first: {command}")
        cause = cause.__cause__
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())


# ---- progress -------------------------------------------------------------------------------------------------------


def progress_bars() -> Progress:
    """Return bars with counts and the time that is left, on stderr; they vanish when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(file=sys.stderr), transient=True)


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield the items under a progress bar, if stderr is a terminal.

    Args:
        items: of any kind.
        description: what is done with them, such as `"Scoring"`.
        total: how many there are.
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
    """Hide the bars of weights being loaded, which takes seconds; downloads keep theirs on a terminal."""
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    if sys.stderr.isatty() and not HF_HUB_DISABLE_PROGRESS_BARS:
        enable_progress_bars()
