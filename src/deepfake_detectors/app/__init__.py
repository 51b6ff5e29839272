"""The app: a page where people drop an image or a video and ask about it (extra `[app]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepfake_detectors.app.limits import Limits, RefusedUpload
from deepfake_detectors.families import resolve

if TYPE_CHECKING:
    from deepfake_detectors.app.page import build as build

# Gradio is required and imported on first use.
_LATER = {"build": "deepfake_detectors.app.page:build"}

__all__ = ["Limits", "RefusedUpload", "build"]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = resolve(_LATER[name])
    return found
