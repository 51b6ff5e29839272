"""The embedded default: a small detector that ships with the package, so that the pipeline works offline."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["LICENSE_NOTICE", "default_checkpoint_path"]

LICENSE_NOTICE = (
    "The embedded default weights were trained on FaceForensics++ pictures and are for non-commercial research only "
    "(terms: LICENSE beside them). They demonstrate the pipeline; do not rely on their verdicts."
)


def default_checkpoint_path() -> Path:
    """Folder of the embedded checkpoint, as `from_pretrained` and `pipeline` take it.

    Raises:
        FileNotFoundError: if the package was built without its weights.
    """
    folder = Path(str(files(__name__)))
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"{folder} holds no model.safetensors: this copy of the package was built without its default weights. "
            "Reinstall it, or name a checkpoint of your own (model=...)."
        )
    return folder
