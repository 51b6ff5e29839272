"""The contracts in pyproject.toml are kept by a tree that follows the design and broken by each trespass.

`make lint` checks the real tree; here they check a small one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from support.source_tree import ROOT, SETUPTOOLS

pytest.importorskip("importlinter", reason="import-linter is in the extra [dev]")
pytestmark = pytest.mark.slow

FILES = {
    "deepfake_detectors/__init__.py": "from deepfake_detectors.pipelines import x",
    "deepfake_detectors/pipelines.py": "def f():\n    from deepfake_detectors.modeling.detection import x",
    "deepfake_detectors/data/lint/run.py": "from deepfake_detectors.evaluation.metrics import x",
    "deepfake_detectors/evaluation/metrics.py": "from deepfake_detectors.data.loading import x",
    "deepfake_detectors/data/loading.py": "from deepfake_detectors.dataset_scripts.ddvqa import x",
    "deepfake_detectors/modeling/detection.py": "from .image_loading import x",
    "deepfake_detectors/modeling/image_loading.py": "import torch",
    "deepfake_detectors/dataset_scripts/ddvqa.py": "import datasets",
    "deepfake_detectors/train/trainer.py": "from deepfake_detectors.evaluation.metrics import x",
    "deepfake_detectors_cli/main.py": "import typer\n\ndef f():\n    from deepfake_detectors import pipeline",
}
TRESPASSES = {
    "modeling imports a part of the package": (
        "deepfake_detectors/modeling/image_loading.py",
        "def f():\n    from ..data.loading import x",
    ),
    "modeling imports the package": ("deepfake_detectors/modeling/image_loading.py", "import deepfake_detectors"),
    "dataset_scripts imports modeling": (
        "deepfake_detectors/dataset_scripts/ddvqa.py",
        "from deepfake_detectors.modeling.image_loading import x",
    ),
    "the library imports train": (
        "deepfake_detectors/data/loading.py",
        "def f():\n    from ..train.trainer import x",
    ),
    "the package imports train": ("deepfake_detectors/__init__.py", "from . import train"),
    "the library imports the command line": (
        "deepfake_detectors/data/loading.py",
        "def f():\n    from deepfake_detectors_cli import main",
    ),
    "train imports the command line": ("deepfake_detectors/train/trainer.py", "import deepfake_detectors_cli.main"),
    "the library imports typer": ("deepfake_detectors/data/loading.py", "def f():\n    import typer"),
    "a folder by its bare name": ("deepfake_detectors/data/loading.py", "from modeling.detection import x"),
    "a circle of files, through a function": (
        "deepfake_detectors/modeling/image_loading.py",
        "def f():\n    from .detection import x",
    ),
    "a circle of folders": ("deepfake_detectors/data/registry.py", "from deepfake_detectors.evaluation import x"),
}


@pytest.fixture
def tree(tmp_path):
    """Lay out the listed packages, empty, and FILES."""
    for package in SETUPTOOLS["packages"]:
        folder = tmp_path.joinpath(*package.split("."))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    for name, source in FILES.items():
        (tmp_path / name).write_text(source + "\n")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def broken_contracts(tree) -> int:
    """Return how many contracts import-linter finds broken."""
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", script, "--no-cache", "pyproject.toml"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    kept, broken = (int(word) for word in done.stdout.split("Contracts:")[1].split()[:3:2])
    assert kept + broken == 5, done.stdout
    assert done.returncode == (1 if broken else 0), done.stderr
    return broken


def test_the_design_keeps_every_contract(tree):
    assert broken_contracts(tree) == 0


@pytest.mark.parametrize("trespass", TRESPASSES)
def test_a_trespass_breaks_a_contract(trespass, tree):
    name, source = TRESPASSES[trespass]
    with (tree / name).open("a") as file:
        file.write(source + "\n")
    assert broken_contracts(tree) >= 1
