"""Installs packages that add families: a folder for `PYTHONPATH`, with the metadata that pip would write."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

TOY = Path(__file__).parent / "toy_family"


def install(site: Path, package: str, points: Mapping[str, str], code: Path | str) -> None:
    """Put a package and its entry points into the folder `site`.

    Args:
        site: made if needed.
        package: its import name; the distribution is called the same.
        points: name of a family -> `module:Name` of its mapping.
        code: a folder to copy, or the text of a single module.
    """
    if isinstance(code, Path):
        shutil.copytree(code, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        site.mkdir(parents=True, exist_ok=True)
        (site / f"{package}.py").write_text(code)
    metadata = site / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n")
    lines = [f"{name} = {reference}\n" for name, reference in points.items()]
    (metadata / "entry_points.txt").write_text("[deepfake_detectors.families]\n" + "".join(lines))


def install_toy_family(site: Path) -> None:
    """Install `tests/support/toy_family` with its two families."""
    install(site, "toy_family", {"toy": "toy_family:TOY", "toy_mask": "toy_family:TOY_MASK"}, TOY)


def run_python(site: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run this Python with the packages of `site`, offline."""
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )
