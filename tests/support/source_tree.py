"""What the packaging tests know about the sources: the map of folders and the files in them."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
PACKAGE_DIR = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items()}
NOT_SOURCES = {".venv", ".venv-newest", ".venv-oldest", ".git", "build", "dist", "goldens", "__pycache__"}


def python_files(folder: Path, pattern: str = "*.py") -> list[Path]:
    """Return every `.py` below `folder` that belongs to the sources, sorted."""
    return sorted(
        path for path in folder.rglob(pattern) if not NOT_SOURCES.intersection(path.relative_to(folder).parts)
    )


def module_name(path: Path) -> str:
    """Import name of a file of the package, `modeling/detection.py` -> `deepfake_detectors.modeling.detection`."""
    name, folder = max(
        ((name, folder) for name, folder in PACKAGE_DIR.items() if folder in path.parents),
        key=lambda pair: len(pair[1].parts),
    )
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join([name, *parts])


def pins(name: str) -> dict[str, Version]:
    """Return the versions that a constraints file pins, by canonical name."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith("#"):
            library, version = line.partition("#")[0].split("==")
            assert canonicalize_name(library) not in found, library
            found[canonicalize_name(library)] = Version(version.strip())
    return found
