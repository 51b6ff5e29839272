"""Datasets: their table, loading a split, checking, building and linting.

```python
from deepfake_detectors.data import build_dataset, check_dataset, lint_dataset, load_split

rows = load_split("ddvqa", "test", data_dir="ddvqa", config="c40")
build_dataset("ddvqa", "parquet/ddvqa", data_dir="ddvqa")
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepfake_detectors.data.check import check_dataset
    from deepfake_detectors.data.lint import lint_dataset
    from deepfake_detectors.data.loading import load_split
    from deepfake_detectors.data.parquet import build_dataset
    from deepfake_detectors.data.registry import dataset_info

__all__ = ["build_dataset", "check_dataset", "dataset_info", "lint_dataset", "load_split"]

_PLACES = {
    "build_dataset": "parquet",
    "check_dataset": "check",
    "dataset_info": "registry",
    "lint_dataset": "lint",
    "load_split": "loading",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is first asked for: lint needs pandas, and most callers need one of them."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
