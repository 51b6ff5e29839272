"""What the packaging tests know about the sources: the map of folders, and the imports of a file."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
PACKAGE_DIR = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items()}
NOT_SOURCES = {".venv", ".git", "build", "dist", "goldens", "__pycache__"}


def python_files(folder: Path) -> list[Path]:
    """Every `.py` below `folder` that belongs to the sources, sorted."""
    return sorted(
        path for path in folder.rglob("*.py") if not NOT_SOURCES.intersection(path.relative_to(folder).parts)
    )


def module_name(path: Path) -> str:
    """Import name of a file of the package, `modeling/detection.py` -> `deepfake_detectors.modeling.detection`."""
    name, folder = max(
        ((name, folder) for name, folder in PACKAGE_DIR.items() if folder in path.parents),
        key=lambda pair: len(pair[1].parts),
    )
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join([name, *parts])


def imports(source: str, module: str = "script") -> Iterator[str]:
    """Absolute dotted names that `source` imports, in functions too, and through `import_module("...")`.

    `from a import b` gives `a` and `a.b`, because `b` may be a module. A name ending in `.__init__` is a package.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def within(name: str, package: str) -> bool:
    """Whether the dotted `name` is `package` or lies inside it."""
    return name == package or name.startswith(package + ".")
