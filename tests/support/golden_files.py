"""Where the goldens lie: inputs and outputs of the official code on tiny random weights."""

import os
from pathlib import Path


def golden_folder(family: str) -> Path:
    root = Path(os.environ.get("DEEPFAKE_GOLDENS") or Path(__file__).parents[1] / "goldens")
    folder = root / family
    if not folder.is_dir():
        raise FileNotFoundError(f"No goldens of {family} in {root}; DEEPFAKE_GOLDENS names the folder that holds it.")
    return folder
