"""The command that a training notes down."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from deepfake_detectors.module_command import launched_command


def start(monkeypatch, module, *arguments):
    """As `python -m module arguments` leaves the interpreter."""
    main = ModuleType("__main__")
    main.__spec__ = ModuleSpec(module, None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])


def test_command_as_typed(monkeypatch):
    start(monkeypatch, "deepfake_detectors.train.train_sft", "--config", "my recipe.yaml")
    expected = "accelerate launch -m deepfake_detectors.train.train_sft --config 'my recipe.yaml'"
    assert launched_command("deepfake_detectors.train") == expected


def test_no_command_where_no_script_was_started(monkeypatch):
    assert launched_command("deepfake_detectors.train") is None
    start(monkeypatch, "pytest.__main__", "-q")
    assert launched_command("deepfake_detectors.train") is None
