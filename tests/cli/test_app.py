"""The command as a whole."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

COMMANDS = ["detect", "info", "convert", "evaluate", "publish"]


def test_help_lists_the_commands(shell) -> None:
    result = shell("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(shell, command: str) -> None:
    result = shell(command, "--help")
    assert result.exit_code == 0
    assert f"Examples:\n    deepfake-detectors {command}" in result.stdout


def test_version(shell) -> None:
    assert shell("--version").stdout.strip() == version("deepfake-detectors")


def test_unknown_command(shell) -> None:
    result = shell("detekt")
    assert result.exit_code == 2 and "detekt" in result.stderr


def test_help_loads_nothing_that_the_package_has_not_loaded() -> None:
    program = (
        "import json, sys, deepfake_detectors; before = set(sys.modules); import deepfake_detectors_cli.app\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    added = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not added & {"torch", "torchvision", "transformers", "timm", "PIL", "numpy", "datasets"}
    assert "deepfake_detectors.pipelines" not in json.loads(done.stdout)
