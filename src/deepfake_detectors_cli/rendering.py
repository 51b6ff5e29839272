"""Rows of the pipeline as a table for people or as JSON lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import IO, Any

__all__ = ["print_table", "write_json_lines"]


def write_json_lines(rows: Iterable[dict[str, Any]], file: IO[str] | None = None) -> None:
    """Write each row as soon as it is there.

    Args:
        rows: JSON-serialisable dicts.
        file: stdout if `None`.
    """
    file = file or sys.stdout
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()


def print_table(rows: Iterable[dict[str, Any]], file: IO[str] | None = None) -> None:
    """Print the rows of `detect`, and the errors under them. `file` is stdout if `None`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("picture", "label", "P(fake)", box=None, pad_edge=False, header_style="bold")
    table.columns[0].overflow = "fold"
    rows = list(rows)
    explained = any(row.get("explanation") is not None for row in rows)
    if explained:
        table.add_column("explanation", overflow="fold")
    table.columns[2].justify = "right"
    errors = []
    for row in rows:
        if "error" in row:
            table.add_row(Text(row["input"]), Text("error", style="yellow"), "")
            errors.append(row["error"])
        else:
            colour = "red" if row["label"] == "fake" else "green"
            cells = [Text(row["input"]), Text(row["label"], style=colour), Text(f"{row['fake_probability']:.3f}")]
            table.add_row(*cells, *([Text(row["explanation"])] if explained else []))
    console = Console(file=file)
    if table.row_count:
        console.print(table)
    for error in errors:
        console.print(Text(error, style="yellow"))
