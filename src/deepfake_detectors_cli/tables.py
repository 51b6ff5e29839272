"""Tables of the library, read from its data files without importing it (which would import torch)."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["list_checkpoints", "list_families", "list_plugins", "read_table"]


def read_table(name: str) -> dict[str, dict[str, Any]]:
    """Return the rows of `families.toml` or `datasets.toml`.

    Args:
        name: `"families"` or `"datasets"`.
    """
    return tomllib.loads((_library() / f"{name}.toml").read_text(encoding="utf-8"))


def list_families() -> list[dict[str, Any]]:
    """Return the main facts about each family of the package."""
    return [
        {
            "name": name,
            "title": row["title"],
            "judges": row["judges"],
            "writes_text": "generation" in row,
            "official": [dict(item) for item in row.get("official", ())],
            "paper": row.get("paper"),
        }
        for name, row in read_table("families").items()
    ]


def list_plugins() -> list[dict[str, str]]:
    """Return the families that other installed packages add, with their packages, without importing them."""
    points = entry_points(group="deepfake_detectors.families")
    return sorted(
        ({"name": point.name, "package": point.dist.name if point.dist else ""} for point in points),
        key=lambda row: row["name"],
    )


def list_checkpoints() -> list[dict[str, str]]:
    """Return the checkpoints inside the package: name for `--model` -> family."""
    return [
        {
            "name": config.parent.name.replace("_", "-"),
            "family": json.loads(config.read_text(encoding="utf-8"))["model_type"],
        }
        for config in sorted((_library() / "checkpoints").glob("*/config.json"))
    ]


def _library() -> Path:
    spec = find_spec("deepfake_detectors")  # finds the package without importing it
    # Both packages are in the same distribution.
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))
