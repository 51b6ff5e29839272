"""How a training was started, for the card of what it trains."""

from __future__ import annotations

import shlex
import sys

__all__ = ["launched_command"]


def launched_command() -> str | None:
    """The command line of this process as it is typed, or `None` if no entry script of this package was started."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or spec.name.rpartition(".")[0] != __package__:
        return None
    return shlex.join(["accelerate", "launch", "-m", spec.name, *sys.argv[1:]])
