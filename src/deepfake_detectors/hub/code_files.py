"""The code of classes as files beside a checkpoint, for those who load it without this package."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

__all__ = ["add_code"]


def add_code(folder: Path, classes: Mapping[str, Any]) -> dict[str, str]:
    """Copy the files of the classes, and all that these import from beside them.

    `save_pretrained(remote_code=True)` of the pipeline does this for a loaded model; adapters are published without
    loading their base.

    Args:
        folder: where config.json is.
        classes: Auto class name -> class.

    Returns:
        What belongs under `auto_map` in the config: Auto class name -> `file.Class`.
    """
    auto_map = {}
    for auto_name, cls in classes.items():
        file = Path(str(sys.modules[cls.__module__].__file__))
        for path in (file, *map(Path, get_relative_import_files(str(file)))):
            shutil.copyfile(path, folder / path.name)
        auto_map[auto_name] = f"{file.stem}.{cls.__name__}"
    return auto_map
