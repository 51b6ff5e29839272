"""The rules that keep the house in order: one copy of every module, dependencies that point one way."""

from __future__ import annotations

import sys

import pytest
from transformers.dynamic_module_utils import get_imports, get_relative_imports

from support.source_tree import PACKAGE_DIR, ROOT, SETUPTOOLS, imports, module_name, python_files, within

FOLDERS = ("modeling", "dataset_scripts", "train", "hub_cards")
FORBIDDEN = {  # a folder -> what it may not import; train may import everything
    "modeling": ["deepfake_detectors"],
    "dataset_scripts": ["deepfake_detectors"],
    "hub_cards": ["deepfake_detectors"],
    "src": ["deepfake_detectors.train"],
}
OWN = {  # ... except its own modules; modeling only by `.name`, which test_hub_collector checks
    "modeling": "deepfake_detectors.modeling",
    "dataset_scripts": "deepfake_detectors.dataset_scripts",
    "hub_cards": "deepfake_detectors.hub_cards",
}
# What a machine that loads Hub code is sure to have. Anything else (timm, peft) goes under `try`.
ALWAYS_THERE = {"torch", "torchvision", "transformers", "PIL", "numpy", "safetensors", "huggingface_hub"}
MODELING = sorted((ROOT / "modeling").glob("*.py"))


def bare(source: str) -> list[str]:
    return [name for name in imports(source) if name.split(".")[0] in FOLDERS]


def against_the_stream(source: str, module: str, folder: str) -> list[str]:
    names = [name for name in imports(source, module) if any(within(name, bad) for bad in FORBIDDEN[folder])]
    own = OWN.get(folder)
    return [name for name in names if own is None or not (within(name, own) or name == own)]


@pytest.mark.parametrize("path", python_files(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_a_folder_by_its_bare_name(path):
    """`import modeling` works from the repository root, but makes a second, different copy of every class."""
    assert not bare(path.read_text()), "write deepfake_detectors.<folder> instead"


@pytest.mark.parametrize(
    "source",
    [
        "import modeling",
        "from modeling.detection import x",
        "def f():\n    import train.sft",
        "import importlib\nimportlib.import_module('hub_cards')",
        "from dataset_scripts import ddvqa",
    ],
)
def test_the_bare_import_scan_sees(source):
    assert bare(source)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_dependencies_point_one_way(folder):
    files = python_files(ROOT / folder)
    assert files
    found = {
        str(path.relative_to(ROOT)): names
        for path in files
        if (names := against_the_stream(path.read_text(), module_name(path), folder))
    }
    assert not found


@pytest.mark.parametrize(
    ("folder", "module", "source"),
    [
        ("src", "deepfake_detectors_cli.main", "from deepfake_detectors import train"),
        ("src", "deepfake_detectors_cli.main", "from ..train import detector"),
        ("src", "deepfake_detectors.__init__", "from . import train"),
        ("src", "deepfake_detectors_cli.main", "import_module('deepfake_detectors.train.detector')"),
        ("modeling", "deepfake_detectors.modeling.detection", "from deepfake_detectors_cli import main"),
        ("modeling", "deepfake_detectors.modeling.detection", "from ..cli import main"),
        ("dataset_scripts", "deepfake_detectors.dataset_scripts.ddvqa", "import deepfake_detectors.modeling"),
    ],
)
def test_the_one_way_scan_sees(folder, module, source):
    assert against_the_stream(source, module, folder)


def test_the_one_way_scan_lets_neighbours_through():
    assert not against_the_stream("from .common import x", "deepfake_detectors.dataset_scripts.a", "dataset_scripts")
    assert not against_the_stream("from .trainable import x", "deepfake_detectors.pipelines", "src")


def test_modeling_is_flat():
    nested = [path for path in python_files(ROOT / "modeling") if path.parent != ROOT / "modeling"]
    assert not nested, "the Hub's collector of remote code refuses sub-folders"


@pytest.mark.parametrize("path", MODELING, ids=lambda path: path.name)
def test_hub_collector_can_carry(path):
    """Read each file as the Hub's own collector does: neighbours by `.name` only, optional libraries under `try`."""
    available = {file.stem for file in MODELING}
    assert set(get_relative_imports(path)) <= available, "a file that is not there, a sub-folder, or a docstring"
    demanded = {name.split(".")[0] for name in get_imports(path)}
    assert demanded <= ALWAYS_THERE | sys.stdlib_module_names, "put optional libraries under `try`"

    inside = {name for name in imports(path.read_text(), module_name(path)) if within(name, "deepfake_detectors")}
    silently_lost = {name for name in inside if name.split(".")[2:3] == []}
    assert not silently_lost, "`from . import name` is saved without the file; write `from .name import X`"
    assert "from deepfake_detectors" not in path.read_text(), (
        "needs the package installed; write `from .name import X`"
    )


def test_the_packages_listed_are_the_packages_that_exist():
    """setuptools leaves an unlisted package out of the wheel without a word."""
    found = set()
    for name, folder in PACKAGE_DIR.items():
        for init in python_files(folder):
            if init.name == "__init__.py":
                found.add(".".join([name, *init.parent.relative_to(folder).parts]))
    assert sorted(SETUPTOOLS["packages"]) == sorted(found)


def test_no_module_lies_in_a_folder_without_init():
    orphans = [
        str(path.relative_to(ROOT))
        for folder in PACKAGE_DIR.values()
        for path in python_files(folder)
        if not (path.parent / "__init__.py").exists()
    ]
    assert not orphans


def test_no_test_folder_is_a_package():
    """`tests` is on the path: a `tests/packaging/__init__.py` would take the place of the library `packaging`."""
    assert not [path for path in python_files(ROOT / "tests") if path.name == "__init__.py"]
