"""Where a recipe is: a file of the user's, or one that ships with the package and is called by its name.

    python -m deepfake_detectors.train.train_classifier --config m2f2_det_stage1_bridge_mini

Whoever installed the wheel has no `train/recipes` folder in front of them, so every `--config` goes through here.
"""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path

__all__ = ["find_recipe", "recipe_names"]

SUFFIX = ".yaml"


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with this package, sorted."""
    return sorted(path.stem for path in _shipped().glob(f"*{SUFFIX}"))


def find_recipe(config: str | Path) -> Path:
    """Return the file that `config` names.

    Args:
        config: path of a recipe, or the name of a shipped one, with or without `.yaml`. A file that exists comes
            first.

    Raises:
        FileNotFoundError: if it is neither; the message names the shipped recipes that are spelled alike, or all.
    """
    path = Path(config)
    if path.is_file():
        return path
    name = path.name.removesuffix(SUFFIX)
    known = recipe_names()
    if path.name == str(config) and name in known:
        return _shipped() / f"{name}{SUFFIX}"
    similar = [name] if name in known else difflib.get_close_matches(name, known, n=3)
    raise FileNotFoundError(
        f"Recipe {str(config)!r} not found. Expected the path of a YAML file, or the name of a recipe of this "
        f"package: {', '.join(similar or known)}."
    )


def _shipped() -> Path:
    return Path(str(files("deepfake_detectors.train"))) / "recipes"
