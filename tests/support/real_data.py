"""Where the real labelled pictures lie, for tests that want them."""

import os
from pathlib import Path

import pytest

ROOT = os.environ.get("DEEPFAKE_DATA")

MISSING = "DEEPFAKE_DATA is not set: set it to the folder with ddvqa/ and the other real datasets"

needs_real_data = pytest.mark.skipif(not ROOT, reason=MISSING)


def real_data(name: str) -> Path:
    """The folder of one data set (or a file beside them); call it in tests under `needs_real_data` only."""
    return Path(str(ROOT)) / name
