"""Options that several commands share, spelled once."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import OutputFormat, fail

__all__ = ["BatchSize", "Device", "Dtype", "DtypeName", "Format", "Model", "parse_option"]


class DtypeName(StrEnum):
    """Precisions a detector can run in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Folder or Hub id of a detector. [default: the demonstration detector in this package]",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Pictures per forward pass.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps ... [default: the first accelerator, or cpu]"
    ),
]
Dtype = Annotated[DtypeName, typer.Option("--dtype", help="Precision; auto is the one that was saved.")]
Format = Annotated[
    OutputFormat, typer.Option("--format", help="auto is a table on a terminal and JSON lines in a pipe.")
]


def parse_option(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` of an `--option`, the value as JSON or text; ends the command for anything else."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        fail(f"--option {text}: expected KEY=VALUE.")
    try:
        return key, json.loads(value)
    except ValueError:  # plain text needs no quotes
        return key, value
