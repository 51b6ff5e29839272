"""The app on a free port of this machine, in the process of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from support.clips import write_clip
from support.source_tree import ROOT

PICTURES = ROOT / "examples" / "pictures"
PORTRAIT = PICTURES / "real_hopper.jpg"
MODEL = "m2f2-det-mini"  # the built-in one that writes


@contextmanager
def served(model: str = MODEL, auth: tuple[str, str] | None = None, **options: Any) -> Iterator[str]:
    """Yield the address of a page, without a slash at its end; it asks for user and password where `auth` is given."""
    from deepfake_detectors.app import build

    page = build(model, **options)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", auth=auth)
    try:
        yield url.rstrip("/")
    finally:
        page.close(verbose=False)


def portrait_clip(path: Path, frames: int = 20) -> Path:
    """Write a video of a portrait that drifts by a few pixels."""
    whole = np.asarray(Image.open(PORTRAIT).convert("RGB"))[:480]
    pictures = [Image.fromarray(np.roll(whole, 2 * (number % 8), axis=1)) for number in range(frames)]
    return write_clip(path, pictures, rate=10)
