"""Limits of the app for uploads, time and turns, and its messages for refused uploads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deepfake_detectors.examination.video import VideoError, is_video, probe
from deepfake_detectors.modeling.image_loading import InputImageError, read_image_facts

__all__ = ["Limits", "RefusedUpload", "check_upload", "in_plain_words"]

MIB = 1 << 20


class RefusedUpload(ValueError):
    """Raised for an upload beyond the limits of the app, with a sentence for the person who sent it."""


@dataclass(frozen=True)
class Limits:
    """Limits of one app.

    Attributes:
        file_bytes: size of one upload, and of any request.
        picture_bytes: size of one image.
        pixels: pixels of an image, or of a frame of a video.
        animation_pixels: total pixels of all frames of an animation.
        video_seconds: length of a video.
        frames: frames to examine in a video.
        job_seconds: time for one examination.
        upload_seconds: time for receiving the body of one request.
        uploads: requests with a body that are received at the same time.
        disk_bytes: total size of all uploads and results.
        keep_seconds: time after which uploads and results are removed.
        queue: waiting requests; any more are told that the app is busy.
        conversations: number of cached conversations.
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
    """Check a file before decoding it, and return `"picture"` or `"video"`.

    Raises:
        RefusedUpload: for a file beyond the limits.
        InputImageError, VideoError: for one that cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > limits.file_bytes:
        raise RefusedUpload(f"The file is too large; the limit is {limits.file_bytes // MIB} MiB.")
    try:
        facts = read_image_facts(path)
    except InputImageError:
        if not is_video(path):
            raise
    else:
        if size > limits.picture_bytes:
            raise RefusedUpload(f"The image is too large; the limit is {limits.picture_bytes // MIB} MiB.")
        _check_pixels("The image", facts["width"], facts["height"], limits)
        if facts["width"] * facts["height"] * facts["frames"] > limits.animation_pixels:
            raise RefusedUpload("The animation has too many frames of this size. Try a shorter or smaller one.")
        return "video" if is_video(path) else "picture"
    found = probe(path)
    if found["duration"] and found["duration"] > limits.video_seconds:
        raise RefusedUpload(
            f"The video lasts {found['duration'] / 60:.0f} minutes; the limit is {limits.video_seconds / 60:.0f}. "
            "Cut out the part in question."
        )
    _check_pixels("The video", found["width"], found["height"], limits)
    return "video"


def _check_pixels(what: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise RefusedUpload(
            f"{what} has {width} x {height} pixels; the limit is {limits.pixels // 1_000_000} megapixels."
        )


def in_plain_words(error: Exception, path: str | Path | None = None) -> str:
    """Return the message of an input error without server folders and exception names.

    Args:
        error: the error that the library raised.
        path: the examined file, which becomes "This file" in the message.
    """
    text = " ".join(str(error).split())
    if path is not None:
        text = text.replace(str(path), "This file")
    if isinstance(error, (InputImageError, VideoError)):
        text = re.sub(r" \((?:\w+(?:Error|Exception|Warning)\b|the content counts).*?\)(?=[.;,]|$)", "", text)
        text = text.replace("in a format that Pillow reads", "or video in a format that can be read")
    return text[:1].upper() + text[1:]
