"""Where output goes: data to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import NoReturn

import typer

__all__ = ["OutputFormat", "fail", "say", "wants_table"]


class OutputFormat(StrEnum):
    """How rows are written."""

    auto = "auto"
    table = "table"
    json = "json"


def wants_table(format: OutputFormat) -> bool:
    """Whether to print for a reader: `auto` means a table on a terminal and JSON in a pipe."""
    return sys.stdout.isatty() if format is OutputFormat.auto else format is OutputFormat.table


def say(message: str) -> None:
    """A remark for the reader, on stderr."""
    typer.echo(message, err=True)


def fail(error: Exception | str, code: int = 2) -> NoReturn:
    """Stop with a message and no traceback.

    Args:
        error: what went wrong.
        code: 2 where the command was given something it cannot use, 1 where the work itself failed.
    """
    say(f"Error: {error}")
    raise typer.Exit(code)
