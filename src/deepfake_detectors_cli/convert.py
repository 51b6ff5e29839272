"""`deepfake-detectors convert`: official files in, a folder for `from_pretrained` out."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from deepfake_detectors_cli.console import fail, say

__all__ = ["convert"]

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")


def convert(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="Detector family, such as m2f2_det.")],
    source: Annotated[
        list[Path], typer.Option(metavar="PATH", help="An official file or folder; repeat it for several.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    config: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="Config fields that differ from the released sizes: a file, or JSON itself."
        ),
    ] = None,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="Insist on this variant of the family.")] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Folder layout, where the family has several (fakevlm: llava)."),
    ] = None,
    lora: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="Where the family has LoRA: fold it into the weights, or keep an adapter."),
    ] = None,
    lora_already_merged: Annotated[
        bool | None,
        typer.Option(
            "--lora-already-merged/--lora-not-merged",
            help="lvlm_dfd: whether its ImageBind weights contain their LoRA already.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the checkpoint in --output; other files there stay.")
    ] = False,
) -> None:
    """Turn the official weights of a detector into a folder that `from_pretrained` and `--model` load.

    \b
    Examples:
      deepfake-detectors convert m2f2_det --source current_model_180.pth --output m2f2-stage1
      deepfake-detectors convert m2f2_det --source M2F2_Det_densenet121.pth --source vision_tower.pth --output m2f2
      deepfake-detectors convert fakevlm --source fakeVLM --output fakevlm-llava --format llava
      deepfake-detectors convert lvlm_dfd --source ckpt.pth --source vicuna-7b-v1.5-16k --output lvlm-dfd
      deepfake-detectors convert lvlm_dfd --source ckpt.pth --variant detector --output lvlm-dfd-mask

    The folder is written whole or not at all. Every key of the official files must find its place; otherwise the
    error lists the keys.
    """
    options: dict[str, Any] = {}
    if config is not None:
        options["config"] = _read_json(config)
    if variant is not None:
        options["variant"] = variant
    if format_ is not None:
        options["format"] = format_
    if lora is not None:
        options["lora"] = lora
    if lora_already_merged is not None:
        options["lora_already_merged"] = lora_already_merged
    missing = [str(path) for path in source if not path.exists()]
    if missing:
        fail(f"--source {', '.join(missing)}: no such file or folder.")
    occupied = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if occupied and not (overwrite and output.is_dir()):
        remedy = "Choose another, or replace the checkpoint in it with --overwrite." if output.is_dir() else ""
        fail(f"--output {output} exists and is not an empty folder. {remedy}".rstrip())

    from transformers.utils import logging as transformers_logging

    from deepfake_detectors import conversion

    transformers_logging.disable_progress_bar()
    try:
        conversion.check_request(family, options)
    except ValueError as error:
        fail(error)
    try:
        if occupied:
            _replace(family, source, output, options)
        else:
            conversion.convert(family, source, output, **options)
    except (ValueError, OSError) as error:
        fail(error, code=1)
    say(f"Wrote {output}. Try it: deepfake-detectors detect face.jpg --model {output}")


def _read_json(config: str) -> dict[str, Any]:
    try:
        text = config if config.lstrip().startswith("{") else Path(config).read_text(encoding="utf-8")
        fields = json.loads(text)
    except OSError as error:
        fail(f"--config {config}: cannot be read ({error.strerror or error}).")
    except ValueError as error:
        fail(f"--config: not valid JSON ({error}).")
    if not isinstance(fields, dict):
        fail(f"--config: expected a JSON object, got {type(fields).__name__}.")
    return fields


def _replace(family: str, source: list[Path], output: Path, options: dict[str, Any]) -> None:
    """Convert beside `output` and move the result in, so that a failure leaves the old checkpoint whole."""
    from deepfake_detectors import conversion

    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.absolute().parent) as folder:
        fresh = conversion.convert(family, source, Path(folder) / "converted", **options)
        # Shards of the old checkpoint would be taken for part of the new one.
        for pattern in WEIGHT_FILES:
            for stale in output.glob(pattern):
                stale.unlink()
        for file in fresh.iterdir():
            shutil.move(file, output / file.name)
