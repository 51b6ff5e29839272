"""Published vision-language deepfake detectors, the Hugging Face way.

Importing the package registers its families and the task with transformers:

```python
import deepfake_detectors
from transformers import pipeline

pipeline("deepfake-detection")("face.jpg")
```
"""

from deepfake_detectors.pipelines import pipeline
from deepfake_detectors.registration import AutoModelForDeepfakeDetection, register_families

__all__ = ["AutoModelForDeepfakeDetection", "__version__", "pipeline"]

__version__ = "0.1.0"

register_families()
