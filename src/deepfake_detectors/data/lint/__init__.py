"""Find what would let a detector cheat on a data set.

```python
from deepfake_detectors.data.lint import lint, open_source

for finding in lint(open_source("ddvqa", "ddvqa/", "c23")).findings:
    print(finding.level, finding.message)
```
"""

from deepfake_detectors.data.lint.findings import LintFinding
from deepfake_detectors.data.lint.run import NEAR_RADIUS, LintResult, lint
from deepfake_detectors.data.lint.sources import Source, builder_source, open_source, parquet_source

__all__ = [
    "NEAR_RADIUS",
    "LintFinding",
    "LintResult",
    "Source",
    "builder_source",
    "lint",
    "open_source",
    "parquet_source",
]
