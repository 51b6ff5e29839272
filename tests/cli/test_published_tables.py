"""The commands of docs/published_tables.md are commands of this package: every flag, data set and protocol exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from deepfake_detectors.corruptions import corruption_set
from deepfake_detectors.data.registry import DATASETS
from deepfake_detectors.evaluation.protocols import PROTOCOLS
from deepfake_detectors.examination.crops import crop_recipe
from deepfake_detectors_cli import app

PAGE = Path(__file__).parents[2] / "docs" / "published_tables.md"
COMMANDS = re.findall(r"`deepfake-detectors ([^`\s]+ [^`]+)`", PAGE.read_text(encoding="utf-8"))


def test_every_paper_has_commands():
    assert len(COMMANDS) >= 14
    for name in ("m2f2_det", "fakevlm", "antifakeprompt", "lvlm_dfd"):
        assert any(f"paper:{name}" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command):
    group = typer.main.get_command(app)
    words = shlex.split(command)
    with group.make_context("deepfake-detectors", words) as outer:
        _, sub, rest = group.resolve_command(outer, words)
        with sub.make_context(words[0], rest, parent=outer) as inner:  # an unknown flag or a missing one raises
            given = inner.params
    if words[0] == "evaluate":
        assert given["protocol"] in PROTOCOLS
        dataset = given["dataset"]
        assert dataset is None or dataset in DATASETS
        config = given["dataset_config"]
        assert config is None or config in DATASETS[dataset].configs
        assert given["robustness"] is None or corruption_set(given["robustness"])
        assert given["crop"] is None or crop_recipe(given["crop"])
