"""What `python -m deepfake_detectors....` has in common: options from a dataclass, progress in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from transformers import HfArgumentParser

__all__ = ["run_command"]

Result = TypeVar("Result")


def run_command(
    function: Callable[[Any], Result], arguments_class: type, arguments: list[str] | None = None
) -> Result:
    """Call `function` with the options of the command line.

    Args:
        function: takes one instance of `arguments_class`.
        arguments_class: a dataclass whose fields are the options.
        arguments: the options; those of the process when `None`.
    """
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("deepfake_detectors").setLevel(logging.INFO)
    (parsed,) = HfArgumentParser(arguments_class).parse_args_into_dataclasses(arguments)
    return function(parsed)
