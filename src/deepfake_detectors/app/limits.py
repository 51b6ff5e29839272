"""What the app takes from a stranger: bytes, pixels, seconds, turns; and how it says no."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deepfake_detectors.examination.video import VideoError, is_video, probe
from deepfake_detectors.modeling.image_loading import InputImageError, read_image_facts

__all__ = ["Limits", "RefusedUpload", "check_upload", "in_plain_words"]

MIB = 1 << 20


class RefusedUpload(ValueError):
    """An upload beyond the limits of the app, in a sentence for the person who sent it."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one app.

    Attributes:
        file_bytes: of one upload; no request is larger.
        picture_bytes: of one picture.
        pixels: of a picture, or of a frame of a video.
        animation_pixels: of all frames of a moving picture together.
        video_seconds: length of a video.
        frames: of a video that are looked at.
        job_seconds: that one examination may take.
        upload_seconds: that the body of one request may take to arrive.
        uploads: requests with a body that are received at once.
        disk_bytes: of all uploads and results together.
        keep_seconds: after which uploads and results are removed.
        queue: requests that wait; more are told that the app is busy.
        conversations: pictures whose conversations are kept ready.
        question: characters of one question.
        turns: questions of one conversation.
        answer_tokens: length of one answer.
    """

    file_bytes: int = 200 * MIB
    picture_bytes: int = 40 * MIB
    pixels: int = 60_000_000
    animation_pixels: int = 1_000_000_000
    video_seconds: float = 900.0
    frames: int = 32
    job_seconds: float = 180.0
    upload_seconds: float = 120.0
    uploads: int = 8
    disk_bytes: int = 4096 * MIB
    keep_seconds: float = 3600.0
    queue: int = 24
    conversations: int = 4
    question: int = 2000
    turns: int = 20
    answer_tokens: int = 1024


def check_upload(path: str | Path, limits: Limits) -> str:
    """Look at a file before it is decoded, and return `"picture"` or `"video"`.

    Raises:
        RefusedUpload: for a file beyond the limits.
        InputImageError, VideoError: for one that cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > limits.file_bytes:
        raise RefusedUpload(f"The file is too large: at most {limits.file_bytes // MIB} MiB are taken.")
    try:
        facts = read_image_facts(path)
    except InputImageError:
        if not is_video(path):
            raise
    else:
        if size > limits.picture_bytes:
            raise RefusedUpload(f"The picture is too large: at most {limits.picture_bytes // MIB} MiB are taken.")
        _check_pixels("The picture", facts["width"], facts["height"], limits)
        if facts["width"] * facts["height"] * facts["frames"] > limits.animation_pixels:
            raise RefusedUpload("The moving picture has too many frames of this size. Try a shorter or smaller one.")
        return "video" if is_video(path) else "picture"
    found = probe(path)
    if found["duration"] and found["duration"] > limits.video_seconds:
        raise RefusedUpload(
            f"The video lasts {found['duration'] / 60:.0f} minutes, and at most {limits.video_seconds / 60:.0f} are "
            "taken. Cut out the part in question."
        )
    _check_pixels("The video", found["width"], found["height"], limits)
    return "video"


def _check_pixels(what: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise RefusedUpload(
            f"{what} has {width} x {height} pixels, and at most {limits.pixels // 1_000_000} megapixels are taken."
        )


def in_plain_words(error: Exception, path: str | Path | None = None) -> str:
    """Return the message of an input error without folders of the server and names of exceptions.

    Args:
        error: what the library raised.
        path: the file that was examined; it is called "This file".
    """
    text = " ".join(str(error).split())
    if path is not None:
        text = text.replace(str(path), "This file")
    if isinstance(error, (InputImageError, VideoError)):
        text = re.sub(r" \((?:\w+(?:Error|Exception|Warning)\b|the content counts).*?\)(?=[.;,]|$)", "", text)
        text = text.replace("in a format that Pillow reads", "or video in a format that can be read")
    return text[:1].upper() + text[1:]
