"""Rows and facts, as tables for people or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

from deepfake_detectors_cli.console import printable

__all__ = ["json_line", "print_facts", "print_records", "print_verdicts", "write_json_lines"]


def write_json_lines(rows: Iterable[Mapping[str, Any]], file: IO[str] | None = None) -> None:
    """Write each row as soon as it arrives.

    Args:
        rows: JSON-serialisable dicts.
        file: stdout if `None`.
    """
    file = file or sys.stdout
    for row in rows:
        file.write(json_line(row, file) + "\n")
        file.flush()


def json_line(row: Mapping[str, Any], file: IO[str] | None = None) -> str:
    """Return a row as JSON that `file` can encode: in ASCII if the file is not UTF-8 or the row has bytes that are not
    text.

    Args:
        row: JSON-serialisable.
        file: stdout if `None`.
    """
    text = json.dumps(row, ensure_ascii=False)
    encoding = (getattr(file or sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-")
    # A lone surrogate stands for a byte of a file name that is not UTF-8; written as an escape, Python can read it
    # back.
    plain = encoding in ("utf-8", "utf8") and not any("\ud800" <= sign <= "\udfff" for sign in text)
    return text if plain else json.dumps(row)


def print_records(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows to stdout as a table with these columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(_in_words(row.get(column), ""))) for column in columns))
    Console(file=sys.stdout).print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values to stdout, one per line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(printable(_in_words(value, "none given"))))
    Console(file=sys.stdout).print(table)


def print_verdicts(rows: Iterable[dict[str, Any]], file: IO[str] | None = None) -> None:
    """Print the rows of `detect`, with errors at the end. `file` is stdout if `None`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "label", "P(fake)", box=None, pad_edge=False, header_style="bold")
    table.columns[0].overflow = "fold"
    rows = list(rows)
    explained = any(row.get("explanation") is not None for row in rows)
    if explained:
        table.add_column("explanation", overflow="fold")
    table.columns[2].justify = "right"
    errors = []
    for row in rows:
        if "error" in row:
            table.add_row(Text(printable(row["input"])), Text("error", style="yellow"), "")
            errors.append(row["error"])
        else:
            colour = "red" if row["label"] == "fake" else "green"
            cells = [
                Text(printable(row["input"])),
                Text(row["label"], style=colour),
                Text(f"{row['fake_probability']:.3f}"),
            ]
            table.add_row(*cells, *([Text(printable(row["explanation"]))] if explained else []))
    console = Console(file=file)
    if table.row_count:
        console.print(table)
    for error in errors:
        console.print(Text(printable(error), style="yellow"))


def _in_words(value: Any, nothing: str) -> str:
    """Return a value as readable text; `nothing` is used for `None` and for empty values."""
    if value is None or value in ({}, []):
        return nothing
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(item, nothing)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_in_words(item, nothing) for item in value)
    return str(value)
