"""Gradio with the changes of this app: uploads are not decoded by Gradio, and limits apply to every launch."""

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

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read by Gradio on import and by all of its parts

try:
    import gradio as gr
except ImportError as error:
    raise ImportError("The app needs Gradio: pip install 'deepfake-detectors[app]'") from error

__all__ = ["TITLE", "AnyFile", "App", "Clip", "Picture", "gr", "plainly"]

logger = logging.getLogger(__name__)

TITLE = "Deepfake detectors"
NOT_SET_UP = "This page is not set up for that. The server log has the reason."
# no fonts from other hosts
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
CSS = """
.dfd-summary { border-left: 6px solid #6b7280; padding: .5rem 1rem; overflow-wrap: anywhere; }
.dfd-fake { border-color: #c62828; } .dfd-real { border-color: #1b7a43; } .dfd-open { border-color: #b07900; }
.dfd-decision { font-size: 1.5rem; font-weight: 700; margin: 0; }
.dfd-small { font-size: .85rem; opacity: .85; }
.dfd-timeline svg { max-width: 100%; height: auto; }
.dfd-crops .grid-container { grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)) !important; }
.dfd-crops img { object-fit: contain !important; }
"""
# Gradio's examples are buttons with an image but without a name, which screen readers cannot distinguish.
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
    """Return the path of an unchanged upload, which is decoded by the library and not by Gradio."""
    if payload is None:
        return None
    file = getattr(payload, "video", payload)
    path = Path(file.path or "").resolve()
    if not path.is_file() or not path.is_relative_to(workspace()):
        raise gr.Error("Only files that were uploaded here can be read.", print_exception=False)
    return str(path)


def _taking_paths(component: type) -> Any:
    """Derive a Gradio component whose value is the path of the upload."""
    # Avoids its metaclass, which writes a stub file next to the module of every subclass.
    fields = {"preprocess": _uploaded_path, "is_template": True, "__module__": __name__}
    return ABCMeta.__new__(type(component), component.__name__, (component,), fields)


Picture, Clip, AnyFile = map(_taking_paths, (gr.Image, gr.Video, gr.File))

_apps: WeakSet[App] = WeakSet()  # of this process


class App(gr.Blocks):
    """Gradio's Blocks with the limits of this app, which also apply to `launch()`.

    Args:
        limits: of uploads, queue and time.
        folder: the workspace.
    """

    def __init__(self, limits: Limits, folder: Path) -> None:
        super().__init__(title=TITLE, analytics_enabled=False)
        self.limits, self.folder = limits, folder
        _apps.add(self)

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Preprocess like the base class, but accept only uploaded files: Gradio would download URLs for a client."""
        if _names_address(inputs):
            raise gr.Error("Only files that were uploaded here can be read.", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)

    def launch(self, *args: Any, **kwargs: Any) -> Any:
        """Launch like Gradio; by default without sharing, recording or serving more than this app needs."""
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
    """Return the example files, which the pages of this process show to everybody."""
    blocks = [block for page in _apps for block in page.blocks.values()]
    return {str(path) for block in blocks for path in getattr(block, "keep_in_cache", ())}


def _names_address(value: Any) -> bool:
    """Return whether a client's data refers to a file by URL instead of an upload."""
    if isinstance(value, Mapping):
        path = value.get("path")
        if isinstance(path, str) and "://" in path:
            return True
        return any(map(_names_address, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_names_address, value))


@contextmanager
def plainly(path: str | None = None) -> Iterator[None]:
    """Turn an input error of the library into a sentence for the user.

    Args:
        path: the examined file.
    """
    try:
        yield
    except ValueError as error:
        raise gr.Error(in_plain_words(error, path), duration=None, print_exception=False) from error
    except (ImportError, OSError) as error:
        logger.exception("A request failed")
        raise gr.Error(NOT_SET_UP, duration=None, print_exception=False) from error
