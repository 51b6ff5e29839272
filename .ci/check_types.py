"""Run mypy over both packages, the folders that pyproject.toml maps into them included.

A type checker finds modules by path and does not know setuptools' package-dir. So this lays the map out as
links in `build/typing`, checks that, and prints the paths a contributor edits. `make lint` then runs import-linter in
the same tree, which finds modules by path too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = ROOT / "build" / "typing"


def lay_out(layout: Path) -> dict[str, str]:
    """Link every mapped folder into `layout`; return {linked path: edited path}, longest first."""
    shutil.rmtree(layout, ignore_errors=True)
    package_dir = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    shown = {}
    for name, folder in sorted(package_dir.items()):  # the parent package sorts before its parts
        linked = layout.joinpath(*name.split("."))
        linked.mkdir(parents=True)
        for child in (ROOT / folder).iterdir():
            if child.name != "__pycache__":
                (linked / child.name).symlink_to(child)
        shown[f"{os.path.relpath(linked, ROOT)}{os.sep}"] = f"{folder}{os.sep}"
    return dict(sorted(shown.items(), key=lambda pair: -len(pair[0])))


def main() -> int:
    shown = lay_out(LAYOUT)
    environment = {**os.environ, "MYPYPATH": str(LAYOUT.relative_to(ROOT))}
    packages = ["-p", "deepfake_detectors", "-p", "deepfake_detectors_cli"]
    command = [sys.executable, "-m", "mypy", *packages, *sys.argv[1:]]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
    output = done.stdout
    for linked, edited in shown.items():
        output = output.replace(linked, edited)
    sys.stdout.write(output)
    sys.stderr.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
