"""The tree that the FaceForensics download script makes, which FaceForensics++ and DeepFakeDetection share."""

from __future__ import annotations

from pathlib import Path

__all__ = ["LEVELS", "level_folder", "mask_place"]

LEVELS = {"raw": ("raw", "c0"), "c23": ("c23",), "c40": ("c40",)}  # some scripts write c0 for raw


def level_folder(folder: Path, compression: str) -> Path:
    """The folder of a compression level below that of a method."""
    names = LEVELS[compression]
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])


def mask_place(method: Path, container: Path, source: str, video: str) -> Path:
    """Where the masks of a fake should lie.

    Args:
        method: the folder of the manipulation. Masks exist once per method, not per compression level.
        container: its folder of one level.
        source: where the frames come from. Cropped frames (`"frames"`) have masks of their own, made beside those of
            c23; whole ones share `masks/`.
        video: name of the fake.
    """
    if source == "frames":
        own = container / "masks" / video
        return own if own.is_dir() else method / "c23" / "masks" / video
    extracted = method / "masks" / "images" / video
    return extracted if extracted.is_dir() else method / "masks" / "videos" / f"{video}.mp4"
