"""Check that the files of `dataset_scripts/` are still loading scripts, with the last library version that runs them.

Needs a separate environment, without this package and without PyTorch:

    python -m venv v3 && v3/bin/pip install "datasets==3.6.0" pillow h5py av
    v3/bin/python .ci/check_loading_scripts.py

Writes the smallest tree of every dataset (those of the tests), loads it by `load_dataset(script, ...)` as a table and
as a stream, and compares both with the builder class used directly.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def load_module(name: str, path: Path, package: bool = False) -> Any:
    """Import a file under a name, without the package around it."""
    spec = importlib.util.spec_from_file_location(
        name, path, submodule_search_locations=[str(path.parent)] if package else None
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def trees() -> dict[str, Any]:
    """Dataset -> class that writes its tree."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support import raw_trees_pictures, raw_trees_videos

    found = [kind for module in (raw_trees_pictures, raw_trees_videos) for kind in vars(module).values()]
    return {kind.dataset: kind for kind in found if inspect.isclass(kind) and hasattr(kind, "dataset")}


def check(name: str, script: str, kind: Any, tree: Any, folder: Path) -> int:
    """Load one dataset in three ways; returns the number of rows."""
    import datasets

    tree.write(folder / "raw")
    options = {"data_dir": str(folder / "raw"), "cache_dir": str(folder / "cache"), **tree.options}
    path = str(ROOT / "dataset_scripts" / f"{script}.py")
    data = datasets.load_dataset(path, tree.config, trust_remote_code=True, **options)
    stream = datasets.load_dataset(path, tree.config, trust_remote_code=True, streaming=True, **options)
    builder = kind(config_name=tree.config, **options)
    total = 0
    for split, units in builder.inspect(Path(folder / "raw")).items():
        expected = [row["id"] for unit in units for row in builder.examples(unit)]
        loaded, streamed = data[split]["id"], [row["id"] for row in stream[split]]
        if not sorted(loaded) == sorted(streamed) == sorted(expected):
            raise SystemExit(f"{name}, {split}: the script returns {loaded} and {streamed}, the class {expected}.")
        total += len(expected)
    return total


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HF_HOME"] = scratch  # read on import, and the scripts are copied there
        import datasets

        if not hasattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE"):
            raise SystemExit(f"datasets {datasets.__version__} cannot run loading scripts; install datasets==3.6.0.")
        table = tomllib.loads((ROOT / "src/deepfake_detectors/datasets.toml").read_text(encoding="utf-8"))
        load_module("dataset_scripts", ROOT / "dataset_scripts/__init__.py", package=True)
        for name, tree in sorted(trees().items()):
            script, kind = table[name]["builder"].rsplit(".", 1)[1].split(":")
            builder = getattr(importlib.import_module(f"dataset_scripts.{script}"), kind)
            rows = check(name, script, builder, tree(), Path(scratch) / name)
            print(f"{name}: {rows} rows from {script}.py with datasets {datasets.__version__}", flush=True)
        absent = sorted(set(table) - set(trees()))
        if absent:
            raise SystemExit(f"No tree to test these scripts with: {', '.join(absent)}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
