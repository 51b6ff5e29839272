"""Built-in checkpoints: small detectors that ship with the package and work offline, one folder each."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["BUILT_IN", "DEFAULT", "built_in_path"]

BUILT_IN = ("clip-probe-mini", "m2f2-det-mini")
DEFAULT = "clip-probe-mini"


def built_in_path(name: str = DEFAULT) -> Path:
    """Return the folder of a built-in checkpoint for `from_pretrained` and `pipeline`.

    Args:
        name: one of `BUILT_IN`.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError: if the package was built without its weights.
    """
    if name not in BUILT_IN:
        raise ValueError(f"name is {name!r}, built-in checkpoints are {', '.join(BUILT_IN)}.")
    folder = Path(str(files(__name__))) / name.replace("-", "_")
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{folder} does not contain *.safetensors: this copy of the package was built without its checkpoints. "
            "Reinstall it, or pass another model."
        )
    return folder
