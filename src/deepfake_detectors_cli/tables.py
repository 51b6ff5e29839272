"""The tables of families and data sets, read as files: importing the library would import torch."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["plugin_names", "read_table"]


def read_table(name: str) -> dict[str, dict[str, Any]]:
    """Return the rows of `families.toml` or `datasets.toml`.

    Args:
        name: `"families"` or `"datasets"`.
    """
    spec = find_spec("deepfake_detectors")  # finds a package without importing it
    assert spec is not None and spec.submodule_search_locations is not None  # both packages are one distribution
    folder = Path(next(iter(spec.submodule_search_locations)))
    return tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))


def plugin_names() -> list[str]:
    """Return the names of families that other installed packages bring; they are not imported."""
    return sorted(point.name for point in entry_points(group="deepfake_detectors.families"))
