"""`make lint` checks the types of the whole package, not only of the folder that a type checker finds by itself."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from support.source_tree import PACKAGE_DIR, ROOT, module_name, python_files


def test_every_module_is_laid_out_for_the_type_checker(tmp_path):
    spec = importlib.util.spec_from_file_location("check_types", ROOT / ".ci" / "check_types.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.lay_out(tmp_path)

    found = set()
    for folder, _, names in os.walk(tmp_path, followlinks=True):
        parts = Path(folder).relative_to(tmp_path).parts
        found.update(".".join([*parts, name.removesuffix(".py")]) for name in names if name.endswith(".py"))
    expected = {module_name(path) for folder in PACKAGE_DIR.values() for path in python_files(folder)}
    assert "deepfake_detectors.modeling.detection" in expected
    assert expected - found == set()
