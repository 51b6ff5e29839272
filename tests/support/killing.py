"""Commands of the package in processes of their own, forked from one that has imported all of it.

They are killed at random, or have a disk that is full.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Killer", "run_command", "run_on_full_disk", "save_weights", "train"]

PRELOADED = [
    "deepfake_detectors.conversion.m2f2_det",
    "deepfake_detectors.conversion.merge",
    "deepfake_detectors.evaluation.evaluate",
    "deepfake_detectors.hub.models",
    "deepfake_detectors.data",
    "deepfake_detectors.train.train_classifier",
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


def run_on_full_disk(words: list[str], log: str, room: int) -> None:
    """As `run_command`, where no file can be larger than `room` bytes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    run_command(words, log)


def train(recipe: str, log: str) -> None:
    """Train a classifier."""
    from deepfake_detectors.train.train_classifier import main

    _be_quiet(log)
    sys.argv = ["train_classifier", "--config", recipe]
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
        begun = time.monotonic()
        code = self.exit_code(function, *arguments)
        assert code == 0, f"exit code {code}"
        return time.monotonic() - begun

    def exit_code(self, function: Callable[..., None], *arguments: Any) -> int | None:
        """Run it to its end."""
        process = self.started(function, *arguments)
        process.join(LONGEST)
        return process.exitcode

    def started(self, function: Callable[..., None], *arguments: Any) -> Any:
        """Return its process."""
        process = self.context.Process(target=function, args=arguments, daemon=False)
        process.start()
        return process

    def killed(self, seconds: float, function: Callable[..., None], *arguments: Any) -> bool:
        """Kill it after a random part of `seconds`; return whether it was still at work."""
        process = self.started(function, *arguments)
        process.join(self.random.uniform(0, seconds))
        working = process.is_alive()
        process.kill()
        process.join()
        return working
