"""Every builder file stays a loading script of datasets 3.x, which copies only the neighbours that the file names."""

import ast
import sys
from pathlib import Path

import pytest

import deepfake_detectors.dataset_scripts
from deepfake_detectors.data.registry import DATASETS

FOLDER = Path(deepfake_detectors.dataset_scripts.__file__).parent
FILES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
SCRIPTS = sorted({row.builder.split(":")[0].rsplit(".", 1)[1] for row in DATASETS.values()})
ALWAYS_THERE = {"datasets", "PIL"} | set(sys.stdlib_module_names)


def tree(name):
    return ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))


def neighbours(name):
    return {node.module for node in ast.walk(tree(name)) if isinstance(node, ast.ImportFrom) and node.level == 1}


@pytest.mark.parametrize("name", FILES)
def test_unguarded_imports_are_always_there(name):
    for node in tree(name).body:
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= ALWAYS_THERE
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert str(node.module).split(".")[0] in ALWAYS_THERE
        elif isinstance(node, ast.ImportFrom):
            assert (node.level, str(node.module).count(".")) == (1, 0)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_names_all_that_it_needs(name):
    needed, found = set(), neighbours(name)
    while found:
        needed |= found
        found = {other for module in found for other in neighbours(module)} - needed
    assert needed == neighbours(name)


@pytest.mark.parametrize("name", FILES)
def test_no_comment_on_an_import_line(name):
    # The import scanner of datasets 3.x takes the comment for the place to fetch the module from.
    for line in (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines():
        assert not (line.startswith(("from .", "import ")) and "#" in line), line


def test_pictures_are_decoded_in_one_place():
    texts = {name: (FOLDER / f"{name}.py").read_text(encoding="utf-8") for name in FILES}
    opening = {name for name, text in texts.items() if "Image.open(" in text or '.convert("' in text}
    assert opening - {"_frames"} == {"_files"}
    assert "Image.open(" not in texts["_frames"]  # it turns the frames of mask clips, decoded by PyAV, into grey
