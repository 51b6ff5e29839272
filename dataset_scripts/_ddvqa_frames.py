"""DD-VQA on frames of FaceForensics++ videos, as FakeVLM's authors explain their protocol.

Their question number n about a video goes with frame number n of that video (their repository, issue 3), so that the
images are other ones than the crops that M2F2-Det publishes.
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
        place: a clip, a folder of frames, or where one should be.
        number: of the frame, from 0.
    """

    entry: Entry
    place: Path
    number: int


def asked_frames(
    root: Path, ffpp: Path, compression: str, split: str, methods: dict[str, str], remedy: str
) -> Iterator[AskedFrame]:
    """The questions of a split with their frames.

    Args:
        root: the folder with `annotations/`.
        ffpp: the folder with `original_sequences/` and `manipulated_sequences/`.
        compression: level of the videos.
        split: `"train"` or `"test"`.
        methods: type digit -> name of the method's folder, `"real"` for the originals.
        remedy: for messages.

    Raises:
        FileNotFoundError: for missing annotations.
        ValueError: for annotations of another form.
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
