"""What the layout of the sources must keep; `make lint` checks which part may import which (`tool.importlinter`)."""

from __future__ import annotations

import re
import sys

import pytest
from transformers.dynamic_module_utils import get_imports, get_relative_imports

from support.source_tree import PACKAGE_DIR, ROOT, SETUPTOOLS, python_files

# What a machine that loads Hub code is sure to have. Anything else (timm, peft) goes under `try`.
ALWAYS_THERE = {"torch", "torchvision", "transformers", "PIL", "numpy", "safetensors", "huggingface_hub"}


def lost_by_the_hub(path, available: set[str]) -> list[str]:
    """Return what the Hub's collector of remote code would lose or refuse of a file, read as it reads it."""
    lost = [f".{name}: not a neighbour" for name in get_relative_imports(path) if name not in available]
    demanded = {name.partition(".")[0] for name in get_imports(path)} - ALWAYS_THERE - sys.stdlib_module_names
    lost += [f"{name}: demanded of everybody, put it under `try`" for name in sorted(demanded)]
    if re.search(r"^\s*from \. import", path.read_text(), re.MULTILINE):
        lost.append("`from . import name` saves no file; write `from .name import X`")
    return lost


def test_the_hub_can_carry_every_file_of_modeling():
    files = python_files(ROOT / "modeling")
    assert not [path for path in files if path.parent != ROOT / "modeling"], "the collector refuses sub-folders"
    available = {path.stem for path in files}
    assert len(available) > 20
    offenders = {path.name: lost for path in files if (lost := lost_by_the_hub(path, available))}
    assert offenders == {}


@pytest.mark.parametrize(
    "source",
    [
        "from . import detection",
        "from .absent import X",
        "from .parts.detection import X",
        "from ..files import X",
        "from deepfake_detectors.files import X",
        "def f():\n    import timm",
        '"""\nfrom .absent import X\n"""',
    ],
)
def test_the_collector_refuses(source, tmp_path):
    (tmp_path / "file.py").write_text(source)
    assert lost_by_the_hub(tmp_path / "file.py", {"detection", "file"})


def test_the_packages_listed_are_the_packages_that_exist():
    """setuptools leaves an unlisted package out of the wheel without a word."""
    found = {
        ".".join([name, *path.parent.relative_to(folder).parts])
        for name, folder in PACKAGE_DIR.items()
        for path in python_files(folder)
    }
    assert sorted(SETUPTOOLS["packages"]) == sorted(found)
    for name in found:
        base = max((known for known in PACKAGE_DIR if name == known or name.startswith(f"{known}.")), key=len)
        assert PACKAGE_DIR[base].joinpath(*name.removeprefix(base).split("."), "__init__.py").is_file(), name


def test_only_the_helpers_of_tests_are_a_package():
    """`tests` is on the path: a `tests/packaging/__init__.py` would take the place of the library `packaging`."""
    found = {path.relative_to(ROOT / "tests").parts[0] for path in python_files(ROOT / "tests", "__init__.py")}
    assert found == {"support"}
