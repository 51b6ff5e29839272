"""Find what would let a detector cheat on a dataset.

```python
from deepfake_detectors.data import lint_dataset

for finding in lint_dataset("ddvqa", data_dir="ddvqa/", config="c23").findings:
    print(finding.level, finding.message)
```
"""

from deepfake_detectors.data.lint.findings import LintResult
from deepfake_detectors.data.lint.run import NEAR_RADIUS, lint_dataset, measure_source
from deepfake_detectors.data.lint.sources import Source, builder_source, open_source, parquet_source

__all__ = [
    "NEAR_RADIUS",
    "LintResult",
    "Source",
    "builder_source",
    "lint_dataset",
    "measure_source",
    "open_source",
    "parquet_source",
]
