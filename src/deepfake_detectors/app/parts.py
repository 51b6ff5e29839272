"""Gradio, with what this app changes: uploads that it does not decode, and bounds that hold at every launch."""

from __future__ import annotations

import logging
import os
from abc import ABCMeta
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

from starlette.middleware import Middleware

from deepfake_detectors.app.guard import Guard, lifespan, workspace
from deepfake_detectors.app.limits import Limits, in_plain_words

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported, and by every part of it

try:
    import gradio as gr
except ImportError as error:
    raise ImportError("The app needs Gradio: pip install 'deepfake-detectors[app]'") from error

__all__ = ["TITLE", "AnyFile", "App", "Clip", "Picture", "gr", "plainly"]

logger = logging.getLogger(__name__)

TITLE = "Deepfake detectors"
NOT_SET_UP = "This page is not set up for that. Whoever runs it finds the reason in its log."
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # none from a host
CSS = """
.dfd-summary { border-left: 6px solid #6b7280; padding: .5rem 1rem; overflow-wrap: anywhere; }
.dfd-fake { border-color: #c62828; } .dfd-real { border-color: #1b7a43; } .dfd-open { border-color: #b07900; }
.dfd-decision { font-size: 1.5rem; font-weight: 700; margin: 0; }
.dfd-small { font-size: .85rem; opacity: .85; }
.dfd-timeline svg { max-width: 100%; height: auto; }
.dfd-crops .grid-container { grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)) !important; }
.dfd-crops img { object-fit: contain !important; }
"""
# Gradio's examples are buttons with a picture and no name, which a screen reader could not tell apart.
NAMES = """() => {
  const name = () => document.querySelectorAll("button.gallery-item:not([aria-label])").forEach((button) => {
    const picture = button.querySelector("img");
    if (!picture) return;
    const file = decodeURIComponent(picture.src.split("/").pop()).replace(/\\.[^.]*$/, "").replaceAll("_", " ");
    button.setAttribute("aria-label", "Example: " + file);
  });
  name();
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
}"""


def _uploaded_path(part: Any, payload: Any) -> str | None:
    """The path of an upload's unchanged bytes: the library decodes it, and Gradio nothing."""
    if payload is None:
        return None
    file = getattr(payload, "video", payload)
    path = Path(file.path or "").resolve()
    if not path.is_file() or not path.is_relative_to(workspace()):
        raise gr.Error("Only files that were uploaded here are read.", print_exception=False)
    return str(path)


def _taking_paths(component: type) -> Any:
    """Derive a part of Gradio whose value is the path of the upload."""
    # Past its metaclass, which writes a stub file beside the module of every class that is derived by `class`.
    fields = {"preprocess": _uploaded_path, "is_template": True, "__module__": __name__}
    return ABCMeta.__new__(type(component), component.__name__, (component,), fields)


Picture, Clip, AnyFile = map(_taking_paths, (gr.Image, gr.Video, gr.File))

_apps: WeakSet[App] = WeakSet()  # of this process


class App(gr.Blocks):
    """Gradio's Blocks with the bounds of this app; `launch()` keeps them wherever it is called.

    Args:
        limits: of uploads, queue and time.
        folder: the workspace.
    """

    def __init__(self, limits: Limits, folder: Path) -> None:
        super().__init__(title=TITLE, analytics_enabled=False)
        self.limits, self.folder = limits, folder
        _apps.add(self)

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """As the base class, but a file must have been uploaded: Gradio would fetch addresses for a client."""
        if _names_address(inputs):
            raise gr.Error("Only files that were uploaded here are read.", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)

    def launch(self, *args: Any, **kwargs: Any) -> Any:
        """As Gradio's `launch`; never shares, records or serves more than this app needs unless told."""
        given = dict(kwargs.pop("app_kwargs", None) or {})
        guard = Middleware(Guard, limits=self.limits, folder=self.folder)
        given["middleware"] = [guard, *given.get("middleware", [])]
        given.setdefault("lifespan", lifespan(self.limits, self.folder, _kept_files))
        settings: dict[str, Any] = {
            "share": False,
            "run_history": False,
            "enable_monitoring": False,
            "show_error": False,
            "ssr_mode": False,
            "mcp_server": False,
            "pwa": False,
            "footer_links": ["api", "settings"],
            "max_file_size": self.limits.file_bytes,
            "allowed_paths": [],
            "theme": THEME,
            "css": CSS,
            "js": NAMES,
        }
        return super().launch(*args, **{**settings, **kwargs, "app_kwargs": given})


def _kept_files() -> set[str]:
    """Files that the pages of this process show to everybody: their examples."""
    blocks = [block for page in _apps for block in page.blocks.values()]
    return {str(path) for block in blocks for path in getattr(block, "keep_in_cache", ())}


def _names_address(value: Any) -> bool:
    """Whether a client's data names a file by an address instead of an upload."""
    if isinstance(value, Mapping):
        path = value.get("path")
        if isinstance(path, str) and "://" in path:
            return True
        return any(map(_names_address, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_names_address, value))


@contextmanager
def plainly(path: str | None = None) -> Iterator[None]:
    """Turn what the library says of an input into the sentence that a person reads.

    Args:
        path: the file that was examined.
    """
    try:
        yield
    except ValueError as error:
        raise gr.Error(in_plain_words(error, path), duration=None, print_exception=False) from error
    except (ImportError, OSError) as error:
        logger.exception("A request failed")
        raise gr.Error(NOT_SET_UP, duration=None, print_exception=False) from error
