"""Options that the commands of `deepfake-detectors dataset` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.options import parse_option

__all__ = ["Config", "DataDir", "Name", "Options", "read_options"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="A data set, as `dataset list` prints it.")]
DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Its raw files. [default: the folder NAME in the directory DEEPFAKE_DATA]"),
]
Config = Annotated[
    str | None, typer.Option(metavar="NAME", help="Config of the builder. [default: the builder's own]")
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="A field of the config, its value as JSON or text; repeatable."
    ),
]


def read_options(texts: list[str] | None) -> dict[str, Any]:
    """`KEY=VALUE` pairs; ends the command at one that is none."""
    return dict(parse_option(text) for text in texts or [])
