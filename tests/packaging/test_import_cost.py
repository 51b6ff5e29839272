"""`import deepfake_detectors` stays light, and everything the core offers works without the extras."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

LOAD_ON_USE = ["timm", "peft", "datasets", "trl", "sklearn", "accelerate", "h5py", "jinja2", "rich", "typer"]

COUNT = f"""
import sys
from transformers import AutoModel, pipeline
before = set(sys.modules)
%s
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(sorted(new & set({LOAD_ON_USE!r})))
"""


def newly_loaded(statement: str, cwd) -> str:
    done = subprocess.run([sys.executable, "-I", "-c", COUNT % statement], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_import_loads_no_heavy_library(tmp_path):
    assert newly_loaded("import deepfake_detectors", tmp_path) == "[]"


@pytest.mark.parametrize("name", ["timm", "sklearn"])
def test_the_count_sees_a_heavy_library(name, tmp_path):
    assert name in newly_loaded(f"import {name}", tmp_path)
