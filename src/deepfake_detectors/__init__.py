"""Published vision-language deepfake detectors, the Hugging Face way.

Importing the package registers its families and the task with transformers:

```python
import deepfake_detectors
from transformers import pipeline

pipeline("deepfake-detection")("face.jpg")
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deepfake_detectors.families import FAMILIES, resolve
from deepfake_detectors.pipelines import pipeline
from deepfake_detectors.registration import AutoModelForDeepfakeDetection, register_families

if TYPE_CHECKING:
    from deepfake_detectors.conversion import convert as convert
    from deepfake_detectors.conversion.merge import merge as merge
    from deepfake_detectors.data import build_dataset as build_dataset
    from deepfake_detectors.data import check_dataset as check_dataset
    from deepfake_detectors.data import dataset_info as dataset_info
    from deepfake_detectors.data import lint_dataset as lint_dataset
    from deepfake_detectors.data import load_split as load_split
    from deepfake_detectors.description import model_info as model_info
    from deepfake_detectors.evaluation.benchmark import benchmark as benchmark
    from deepfake_detectors.evaluation.evaluate import evaluate as evaluate
    from deepfake_detectors.examination.examine import examine as examine
    from deepfake_detectors.examination.replay import replay as replay
    from deepfake_detectors.hub.datasets import publish_dataset as publish_dataset
    from deepfake_detectors.hub.models import publish_model as publish_model
    from deepfake_detectors.hub.spaces import publish_space as publish_space
    from deepfake_detectors.runtime.export import export as export
    from deepfake_detectors.scale.score import score as score

# Modules of functions that need more than a detector does; each is imported on first use.
_LATER = {
    "benchmark": "deepfake_detectors.evaluation.benchmark:benchmark",
    "build_dataset": "deepfake_detectors.data:build_dataset",
    "check_dataset": "deepfake_detectors.data:check_dataset",
    "convert": "deepfake_detectors.conversion:convert",
    "dataset_info": "deepfake_detectors.data:dataset_info",
    "evaluate": "deepfake_detectors.evaluation.evaluate:evaluate",
    "examine": "deepfake_detectors.examination.examine:examine",
    "export": "deepfake_detectors.runtime.export:export",
    "lint_dataset": "deepfake_detectors.data:lint_dataset",
    "load_split": "deepfake_detectors.data:load_split",
    "merge": "deepfake_detectors.conversion.merge:merge",
    "model_info": "deepfake_detectors.description:model_info",
    "publish_dataset": "deepfake_detectors.hub.datasets:publish_dataset",
    "publish_model": "deepfake_detectors.hub.models:publish_model",
    "publish_space": "deepfake_detectors.hub.spaces:publish_space",
    "replay": "deepfake_detectors.examination.replay:replay",
    "score": "deepfake_detectors.scale.score:score",
}

__all__ = [
    "FAMILIES",
    "AutoModelForDeepfakeDetection",
    "__version__",
    "benchmark",
    "build_dataset",
    "check_dataset",
    "convert",
    "dataset_info",
    "evaluate",
    "examine",
    "export",
    "lint_dataset",
    "load_split",
    "merge",
    "model_info",
    "pipeline",
    "publish_dataset",
    "publish_model",
    "publish_space",
    "replay",
    "score",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "app":  # a separate package, with the entry point `dfd.app.build()`
        return import_module("deepfake_detectors.app")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = resolve(_LATER[name])
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


register_families()
