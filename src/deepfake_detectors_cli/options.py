"""Options that several commands share."""

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
        help="Family of the model in a stock folder, such as fakevlm. [default: by its Hub id, else chat_vlm]",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Images per forward pass.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps ... [default: the first accelerator, or cpu]"
    ),
]
Dtype = Annotated[DtypeName, typer.Option("--dtype", help="Precision; auto uses the saved one.")]
Format = Annotated[
    OutputFormat, typer.Option("--format", help="auto writes a table on a terminal and JSON lines in a pipe.")
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
    typer.Option(
        "--max-pixels", metavar="N", min=1, help="Largest image to decode, in pixels. [default: 100 million]"
    ),
]
AllowPrivateHosts = Annotated[
    bool, typer.Option("--allow-private-hosts", help="Also download from this machine and from private networks.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show only errors, without progress bars and notes.")]


def parse_option(text: str) -> tuple[str, Any]:
    """Return the key and value of `KEY=VALUE`, the value as JSON or text; end the command for any other text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        fail(f"--option {text}: expected KEY=VALUE.")
    try:
        return key, json.loads(value)
    except ValueError:  # plain text does not have to be quoted
        return key, value


def check_new_folder(output: Path, overwrite: bool | None = None) -> None:
    """End the command if `--output` exists already, before importing anything heavy.

    Args:
        output: should be a new or empty folder.
        overwrite: the command's `--overwrite`; `None` if it does not have the option.
    """
    if not output.exists() or (output.is_dir() and (overwrite or not any(output.iterdir()))):
        return
    other = "Choose another folder, or add --overwrite to replace the checkpoint in it." if overwrite is False else ""
    fail(f"--output {output} exists and is not an empty folder. {other or 'Choose another folder.'}")
