"""`deepfake-detectors merge`: a base and trained deltas in, a complete folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepfake_detectors_cli.console import fail, say

__all__ = ["merge"]


def merge(
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="Folder or Hub id of the base.")],
    delta: Annotated[
        list[Path], typer.Option(metavar="PATH", help="A trained delta, file or folder; repeat it for several.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
) -> None:
    """Add trained deltas to their base, in the order given, and write a complete folder.

    \b
    Examples:
      deepfake-detectors merge --model m2f2-stage2 --delta lora/ --output m2f2-stage3
      deepfake-detectors merge --model m2f2-llm --delta lora/ --delta non_lora_trainables.bin --output merged

    LoRA pairs are added, every other tensor replaces the base's. What a delta is follows from its content, never from
    its name. A tensor that the base does not have is an error.
    """
    from transformers.utils import logging as transformers_logging

    from deepfake_detectors.conversion.merge import merge as merge_deltas

    transformers_logging.disable_progress_bar()
    try:
        merge_deltas(model, delta, output)
    except (ValueError, OSError) as error:
        fail(error, code=1)
    say(f"Wrote {output}. Try it: deepfake-detectors info --model {output}")
