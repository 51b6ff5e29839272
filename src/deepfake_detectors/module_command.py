"""Shared code of `python -m deepfake_detectors....`: options from a dataclass, progress in the log."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from transformers import HfArgumentParser

__all__ = ["launched_command", "run_command", "show_progress"]

Result = TypeVar("Result")


def show_progress() -> None:
    """Log this package's progress to standard error; for entry points only."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("deepfake_detectors").setLevel(logging.INFO)


def run_command(
    function: Callable[[Any], Result], arguments_class: type, arguments: list[str] | None = None
) -> Result:
    """Call `function` with the options of the command line.

    Args:
        function: takes one instance of `arguments_class`.
        arguments_class: a dataclass whose fields are the options.
        arguments: the options; `None` means those of the process.
    """
    show_progress()
    (parsed,) = HfArgumentParser(arguments_class).parse_args_into_dataclasses(arguments)
    return function(parsed)


def launched_command(package: str) -> str | None:
    """Return the command line of this process as typed, for the card of the trained model.

    Args:
        package: import path of the package with the entry scripts.

    Returns:
        `None` if no entry script of that package was started.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or spec.name.rpartition(".")[0] != package:
        return None
    return shlex.join(["accelerate", "launch", "-m", spec.name, *sys.argv[1:]])
