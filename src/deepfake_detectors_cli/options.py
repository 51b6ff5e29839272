"""Options that several commands share, spelled once."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import OutputFormat, fail

__all__ = [
    "AllowPrivateHosts",
    "BatchSize",
    "Decoding",
    "DecodingName",
    "Device",
    "Dtype",
    "DtypeName",
    "Family",
    "Format",
    "MaxPixels",
    "Model",
    "NumWorkers",
    "Quiet",
    "check_new_folder",
    "parse_option",
]


class DtypeName(StrEnum):
    """Precisions a detector can run in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class DecodingName(StrEnum):
    """How image files are decoded."""

    full = "full"
    draft = "draft"


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Folder, Hub id, or name of a built-in detector. [default: the built-in demonstration detector]",
    ),
]
Family = Annotated[
    str | None,
    typer.Option(
        "--family",
        metavar="NAME",
        help="What a stock folder holds, such as fakevlm. [default: by its Hub id, else chat_vlm]",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Images per forward pass.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps ... [default: the first accelerator, or cpu]"
    ),
]
Dtype = Annotated[DtypeName, typer.Option("--dtype", help="Precision; auto is the saved one.")]
Format = Annotated[
    OutputFormat, typer.Option("--format", help="auto is a table on a terminal and JSON lines in a pipe.")
]
NumWorkers = Annotated[
    int,
    typer.Option(
        "--num-workers", metavar="N", min=0, help="Threads that read and prepare images beside the model; 0 for none."
    ),
]
Decoding = Annotated[
    DecodingName,
    typer.Option(
        "--decoding",
        help="draft: decode large JPEG files in a smaller size. Faster, but changes pixels and, a little, scores.",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option("--max-pixels", metavar="N", min=1, help="Largest image that is decoded. [default: 100 million]"),
]
AllowPrivateHosts = Annotated[
    bool, typer.Option("--allow-private-hosts", help="Also download from this machine and from inner networks.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no remarks, only errors.")]


def parse_option(text: str) -> tuple[str, Any]:
    """Return key and value of `KEY=VALUE`, the value as JSON or text; end the command for anything else."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        fail(f"--option {text}: expected KEY=VALUE.")
    try:
        return key, json.loads(value)
    except ValueError:  # plain text needs no quotes
        return key, value


def check_new_folder(output: Path, overwrite: bool | None = None) -> None:
    """End the command if `--output` is taken, before anything heavy is imported.

    Args:
        output: should be a new or empty folder.
        overwrite: of the command; `None` where it has no such option.
    """
    if not output.exists() or (output.is_dir() and (overwrite or not any(output.iterdir()))):
        return
    other = "Choose another, or replace the checkpoint in it with --overwrite." if overwrite is False else ""
    fail(f"--output {output} exists and is not an empty folder. {other or 'Choose another.'}")
