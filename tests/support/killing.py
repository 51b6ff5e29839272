"""Commands of the package in processes that are killed at random: forked from one that has imported all of it."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Killer", "run_command", "save_weights"]

PRELOADED = [
    "deepfake_detectors.evaluation.evaluate",
    "deepfake_detectors.hub.models",
    "deepfake_detectors.data",
    "deepfake_detectors_cli.app",
    "deepfake_detectors_cli.detect",
    "deepfake_detectors_cli.evaluate",
    "matplotlib.pyplot",
    "transformers.pipelines",
    "support.killing",
]
LONGEST = 240  # seconds for one command


def run_command(words: list[str], log: str) -> None:
    """Run `deepfake-detectors` with these words; what it says goes to a file."""
    from deepfake_detectors_cli.app import main

    _be_quiet(log)
    sys.argv = ["deepfake-detectors", *words]
    main()


def save_weights(folder: str, value: float, log: str) -> None:
    """Save a tiny detector, all of whose weights have one value, which its config states, too."""
    import torch
    from transformers import AutoConfig, AutoModel

    _be_quiet(log)
    config = AutoConfig.from_pretrained(Path(folder).parent / "tiny", operating_points={"value": value})
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(value)
    model.save_pretrained(folder)


def _be_quiet(log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    import torch

    torch.set_num_threads(1)


class Killer:
    """Runs functions in processes of their own, whole or killed at a random moment.

    Args:
        environment: variables for the processes, set before anything is imported there.
        seed: of the moments.
    """

    def __init__(self, environment: dict[str, str], seed: int = 0) -> None:
        os.environ.update(environment)
        self.context: Any = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.random = random.Random(seed)

    def whole(self, function: Callable[..., None], *arguments: Any) -> float:
        """Run it to its end and return the seconds it took.

        Raises:
            AssertionError: for an exit code other than 0.
        """
        process = self.context.Process(target=function, args=arguments)
        begun = time.monotonic()
        process.start()
        process.join(LONGEST)
        assert process.exitcode == 0, f"exit code {process.exitcode}"
        return time.monotonic() - begun

    def killed(self, seconds: float, function: Callable[..., None], *arguments: Any) -> bool:
        """Kill it after a random part of `seconds`; return whether it was still at work."""
        process = self.context.Process(target=function, args=arguments)
        process.start()
        process.join(self.random.uniform(0, seconds))
        working = process.is_alive()
        process.kill()
        process.join()
        return working
