"""DD-VQA on frames of FaceForensics++ videos, following the explanation of FakeVLM's authors.

Question number n about a video belongs to frame number n of that video (issue 3 in their repository), so the images
differ from the crops published by M2F2-Det.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ._ddvqa_questions import Entry, read_annotations
from ._frames import CLIP_SUFFIXES, SOURCES
from ._releases import level_folder

__all__ = ["AskedFrame", "asked_frames"]

ANNOTATIONS = {"train": "train_set", "test": "test_set"}


class AskedFrame(NamedTuple):
    """A question with its frame.

    Args:
        entry: the question; its image is `<type>_<target>[_<source>]`.
        place: a clip or a folder of frames, or the expected path if missing.
        number: number of the frame, starting at 0.
    """

    entry: Entry
    place: Path
    number: int


def asked_frames(
    root: Path, ffpp: Path, compression: str, split: str, methods: dict[str, str], remedy: str
) -> Iterator[AskedFrame]:
    """Return the questions of a split with their frames.

    Args:
        root: the folder with `annotations/`.
        ffpp: the folder with `original_sequences/` and `manipulated_sequences/`.
        compression: compression level of the videos.
        split: `"train"` or `"test"`.
        methods: type digit -> name of the method's folder, `"real"` for the originals.
        remedy: advice for error messages.

    Raises:
        FileNotFoundError: for missing annotations.
        ValueError: for annotations in another format.
    """
    for entry in read_annotations(root / "annotations" / ANNOTATIONS[split], remedy):
        kind, _, video = entry.picture.partition("_")
        number = entry.name.rpartition("/")[2]
        if kind not in methods or not number.isdecimal():
            raise ValueError(
                f"{entry.picture}, question {number!r}: expected a type of {', '.join(methods)} and a number."
            )
        method = methods[kind]
        inside = "original_sequences/youtube" if method == "real" else f"manipulated_sequences/{method}"
        yield AskedFrame(entry, _place(level_folder(ffpp / inside, compression), video), int(number))


def _place(container: Path, video: str) -> Path:
    for source in SOURCES:
        if source != "videos" and (container / source / video).is_dir():
            return container / source / video
    clips = [container / "videos" / f"{video}{suffix}" for suffix in CLIP_SUFFIXES]
    return next((clip for clip in clips if clip.is_file()), clips[0])
