"""Read frames of a video by presentation time, without reading the whole file."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from PIL import Image

from deepfake_detectors.modeling.image_loading import MAX_PIXELS, InputImageError, animation_frames, animation_times

__all__ = ["MAX_FRAME_PIXELS", "VIDEO_SUFFIXES", "Frame", "VideoError", "is_video", "probe", "sample_frames"]

VIDEO_SUFFIXES = frozenset(
    ".264 .265 .3g2 .3gp .asf .avi .flv .h264 .hevc .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm "
    ".wmv".split()
)
MAX_FRAME_PIXELS = 100_000_000  # 8K has 33 million; a header can claim any size

# FFmpeg also reads playlists and scripts that refer to other files, which are never opened.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpeg,mpegts,mpegvideo,ogg,h264,hevc,m4v,ivf,dv,mxf"
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"heim", b"heis", b"jxl ")
LATE = 1.0  # seconds by which a file may end before the duration in its header


class VideoError(ValueError):
    """Raised for a file that cannot be examined as a video. The message starts with its name, which is
    also in `source`.

    Args:
        message: one sentence with the file, the fault and, if possible, the remedy.
        source: the path as it was given.
    """

    def __init__(self, message: str, source: str = "") -> None:
        super().__init__(message)
        self.source = source


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        index: its number in the file, from 0, by time and average frame rate: exact for a constant rate and for
            animations, otherwise an estimate; always ascending.
        seconds: presentation time, relative to the first frame.
        image: upright, RGB.
    """

    index: int
    seconds: float
    image: Image.Image


def is_video(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> bool:
    """Return whether to read a file as a video: by its content, or by its name if the content is damaged.

    Animated GIF, WebP and PNG images are videos. A container with only sound is one too, and reading it gives an
    error. An animation with frames larger than `max_pixels` is an image, which `load_image` refuses.
    """
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(400)
    if _is_animation(head):
        try:
            return len(animation_times(path, max_pixels=max_pixels)) > 2
        except InputImageError:
            return False
    if head[4:8] == b"ftyp":
        return head[8:12] not in PICTURE_BRANDS
    if head[:4] in (
        b"\x1aE\xdf\xa3",
        b"FLV\x01",
        b"OggS",
        b"\x00\x00\x01\xba",
        b"\x00\x00\x01\xb3",
        b"\x30\x26\xb2\x75",
    ):
        return True
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free") or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    if head[:1] == b"G" and head[188:189] == b"G" and head[376:377] == b"G":
        return True
    return path.suffix.lower() in VIDEO_SUFFIXES and not _is_picture(head)


def probe(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> dict[str, Any]:
    """Return the metadata of a video without decoding it.

    Args:
        path: a video, or an animated GIF, WebP or PNG image.
        max_pixels: largest width times height of a frame of an animation.

    Returns:
        `format`, `codec`, `pixel_format`; `duration` in seconds; `fps`, the average rate; `frames`, their number,
        `None` if the file does not have it; `width`, `height` in pixels, upright; `rotation` in degrees, by which its
        frames are rotated counter-clockwise to be upright; `bit_rate` in bits per second or `None`; `audio`, whether
        it has sound; `created` and `encoder`, the time and program in its metadata, or `None`.

    Raises:
        VideoError: for a file that cannot be examined.
        ImportError: if PyAV is not installed; the message names the extra.
    """
    name = str(path)
    path = _file(path)
    if _animated(path):
        times = _animation_times(path, name, max_pixels)
        picture = next(_animation_images(path, name, [0], max_pixels))
        frames, duration = len(times) - 1, times[-1]
        return {
            "format": _animation_format(path),
            "codec": None,
            "pixel_format": None,
            "duration": duration,
            "fps": frames / duration if duration else None,
            "frames": frames,
            "width": picture.width,
            "height": picture.height,
            "rotation": 0,
            "bit_rate": None,
            "audio": False,
            "created": None,
            "encoder": None,
        }
    with _opened(path, name) as (container, stream):
        clock = _Clock(container, stream, path)
        rotation = next((frame.rotation for frame in _decoded(container, stream, name)), 0)
        width, height = stream.codec_context.width, stream.codec_context.height
        if rotation % 180:
            width, height = height, width
        labels = {**container.metadata, **stream.metadata}
        return {
            "format": container.format.name,
            "codec": stream.codec_context.name,
            "pixel_format": stream.codec_context.pix_fmt,
            "duration": clock.duration,
            "fps": float(clock.rate),
            "frames": stream.frames or None,
            "width": width,
            "height": height,
            "rotation": rotation,
            "bit_rate": container.bit_rate or None,
            "audio": bool(container.streams.audio),
            "created": labels.get("creation_time"),
            "encoder": labels.get("encoder") or labels.get("com.apple.quicktime.software"),
        }


def sample_frames(
    path: str | Path,
    frames: int = 32,
    every: float | None = None,
    start: float | None = None,
    end: float | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Frame]:
    """Yield frames of a video, evenly spaced by presentation time.

    The frame at a given time is the one on screen. Each frame is yielded once, so a short video gives fewer. The file
    is seeked instead of read completely: time grows with the number of frames, and memory is constant.

    Args:
        path: a video, or an animated GIF, WebP or PNG image.
        frames: number of frames, from the start to the end.
        every: seconds from one to the next, instead of `frames`.
        start, end: part of the video to read, in seconds from the first frame.
        max_pixels: largest width times height of a frame of an animation.

    Raises:
        ValueError: for `frames`, `every`, `start` or `end` out of range.
        VideoError: for a file that cannot be examined, or that ends early; frames before the fault are yielded first.
        ImportError: if PyAV is not installed; the message names the extra.
    """
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise ValueError(f"frames is {frames!r}, expected at least 1.")
    if every is not None and not 0 < every < float("inf"):
        raise ValueError(f"every is {every!r}, expected seconds above 0.")
    first = 0.0 if start is None else start
    if not 0 <= first < float("inf"):
        raise ValueError(f"start is {start!r}, expected 0 seconds or more.")
    if end is not None and not first < end:
        raise ValueError(f"end is {end!r}, expected more than start, {first!r}.")
    return _sampled(path, frames, every, first, end, max_pixels)


def _sampled(
    path: str | Path, frames: int, every: float | None, start: float, end: float | None, max_pixels: int
) -> Iterator[Frame]:
    name = str(path)
    path = _file(path)
    if _animated(path):
        times = _animation_times(path, name, max_pixels)
        length = len(times) - 1
        moments = _moments(name, times[-1], times[-2], frames, every, start, end)
        wanted = sorted({max(n for n in range(length) if times[n] <= moment + 1e-6) for moment in moments})
        for number, image in zip(wanted, _animation_images(path, name, wanted, max_pixels), strict=True):
            yield Frame(number, times[number], image)
        return
    with _opened(path, name) as (container, stream):
        clock = _Clock(container, stream, path)
        last = max(0.0, clock.duration - 1 / float(clock.rate))
        previous = -1
        for seconds, frame in _frames_at(
            container, stream, clock, name, _moments(name, clock.duration, last, frames, every, start, end)
        ):
            previous = max(previous + 1, round(seconds * float(clock.rate)))
            yield Frame(previous, seconds, _upright(frame))


def _moments(
    name: str, duration: float, last: float, frames: int, every: float | None, start: float, end: float | None
) -> Iterator[float]:
    if start > last and start > 0:
        raise ValueError(f"start is {start:g}, but {name} lasts {duration:g} seconds.")
    until = last if end is None else min(end, last)
    if every is not None:
        return takewhile(lambda moment: moment <= until + 1e-6, (start + every * number for number in count()))
    if frames == 1:
        return iter([start])
    return (start + (until - start) * number / (frames - 1) for number in range(frames))


class _Clock:
    """Times of a stream. `origin` and the argument of `at` are in its `time_base`; `duration` is in seconds."""

    def __init__(self, container: Any, stream: Any, path: Path) -> None:
        self.base = Fraction(stream.time_base or Fraction(1, 1000))
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self.origin = stream.start_time or 0
        self.timed = stream.time_base is not None and stream.start_time is not None
        if stream.duration:
            self.duration = float(stream.duration * self.base)
        elif container.duration:
            self.duration = container.duration / 1_000_000
        else:
            self.duration = self._counted(path, stream.index)

    def _counted(self, path: Path, index: int) -> float:
        """Measure the duration of a file without one, by reading its packets without decoding."""
        end, packets = 0.0, 0
        with _pyav().open(str(path.resolve()), options=OPTIONS, metadata_errors="replace") as container:
            for packet in container.demux(container.streams[index]):
                packets += bool(packet.size)
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0) - self.origin) * self.base))
        return end or float(packets / self.rate)

    def at(self, ticks: int) -> float:
        return float((ticks - self.origin) * self.base)


def _frames_at(
    container: Any, stream: Any, clock: _Clock, name: str, moments: Iterator[float]
) -> Iterator[tuple[float, Any]]:
    """Yield the frames on screen at ascending times, each once, with their times."""
    reader = _Reader(container, stream, clock, name)
    yielded = -1.0
    for moment in moments:
        seconds, frame = reader.at(moment)
        if seconds > yielded:
            yielded = seconds
            yield seconds, frame


class _Reader:
    """Reads forward, and seeks if that is faster."""

    def __init__(self, container: Any, stream: Any, clock: _Clock, name: str) -> None:
        self.container, self.stream, self.clock, self.name = container, stream, clock, name
        self.half = 0.5 / float(clock.rate) if clock.rate else 0.0
        self.far = 2.0  # seconds ahead at which seeking is tried; grows if key frames are rare
        self.held: tuple[float, Any] | None = None
        self._restart()

    def _restart(self) -> None:
        self.decoder = _decoded(self.container, self.stream, self.name)
        self.position = 0
        self.ahead = self._next()

    def _next(self) -> tuple[float, Any] | None:
        frame = next(self.decoder, None)
        if frame is None:
            return None
        ticks = frame.pts if frame.pts is not None else frame.dts
        if ticks is None:
            seconds = self.position / float(self.clock.rate)
        else:
            seconds = self.clock.at(ticks)
        self.position += 1
        return seconds, frame

    def at(self, moment: float) -> tuple[float, Any]:
        if self._jump_pays(moment):
            self._jump(moment)
        while self.ahead is not None and self.ahead[0] <= moment + 1e-4:
            self.held = self.ahead
            self.ahead = self._next()
        if self.held is None:
            self.held = self.ahead  # the first frame is shown later than the moment
        if self.held is None:
            raise VideoError(f"{self.name}: no frame can be decoded.", self.name)
        ended = self.held[0] + max(LATE, 2 * self.half)
        if self.ahead is None and moment > ended and moment < self.clock.duration - LATE:
            raise VideoError(
                f"{self.name} ends, or cannot be decoded, after {self.held[0]:.1f} of {self.clock.duration:.1f} s: "
                f"it is damaged or incomplete. Examine the part before with end={self.held[0]:.1f}.",
                self.name,
            )
        return self.held

    def _jump_pays(self, moment: float) -> bool:
        if not self.clock.timed or self.ahead is None or moment - self.ahead[0] < self.far:
            return False
        entries = getattr(self.stream, "index_entries", None)
        ticks = self.clock.origin + int(moment / self.clock.base)
        if entries is not None and len(entries):
            found = entries.search_timestamp(ticks, backward=True)
            if 0 <= found < len(entries):
                return self.clock.at(entries[found].timestamp) > self.ahead[0]
        return True

    def _jump(self, moment: float) -> None:
        av = _pyav()
        before = self.ahead
        assert before is not None
        for earlier in (0.0, 2.0, 10.0):
            ticks = self.clock.origin + int(max(0.0, moment - earlier) / self.clock.base)
            try:
                self.container.seek(ticks, stream=self.stream, backward=True)
            except av.FFmpegError:
                self.clock.timed = False  # this file cannot be seeked: read on
                return
            self._restart()
            if self.ahead is None:
                continue
            self.held = None
            if self.ahead[0] <= moment + 1e-4:
                if self.ahead[0] <= before[0]:
                    self.far = max(self.far, 2 * (moment - self.ahead[0]))
                return
        if self.ahead is None:
            raise VideoError(
                f"{self.name}: nothing can be decoded at {moment:.1f} of {self.clock.duration:.1f} seconds: it is "
                "damaged or incomplete. Examine the part before with `end`.",
                self.name,
            )


def _decoded(container: Any, stream: Any, name: str) -> Iterator[Any]:
    """Yield the frames from the current position. Packets that cannot be decoded are skipped, as in players.

    Raises:
        VideoError: if most of them cannot be decoded.
    """
    av = _pyav()
    good = bad = 0
    try:
        for packet in container.demux(stream):
            if not good and _encrypted(packet):
                raise VideoError(f"{name} is encrypted; examine a copy without protection.", name)
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                bad += 1
                if bad > 50 + good:
                    raise VideoError(f"{name} cannot be decoded ({error.strerror}): it is damaged.", name) from error
                continue
            for frame in frames:
                if frame.is_corrupt:
                    bad += 1
                    continue
                good += 1
                yield frame
    except av.FFmpegError as error:
        if not good:
            raise VideoError(f"{name} cannot be decoded ({error.strerror}): it is damaged.", name) from error


def _encrypted(packet: Any) -> bool:
    """Return whether it is encrypted: FFmpeg would decode it to noise."""
    return bool(packet.size) and hasattr(packet, "has_sidedata") and packet.has_sidedata("encryption_info")


def _upright(frame: Any) -> Image.Image:
    image = frame.to_image()
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    turn = turns.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[Any, Any]]:
    av = _pyav()
    try:
        container = av.open(str(path.resolve()), options=OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        raise VideoError(
            f"{name} cannot be opened as a video ({error.strerror}): it is damaged, incomplete or another type of "
            "file.",
            name,
        ) from error
    with container:
        attached = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & attached]
        if not streams:
            raise VideoError(f"{name} does not contain video, only sound or data.", name)
        stream = streams[0]
        context = stream.codec_context
        if context is None or not context.width or not context.height:
            raise VideoError(f"{name}: its video cannot be decoded by this build of FFmpeg, or is damaged.", name)
        if context.width * context.height > MAX_FRAME_PIXELS:
            raise VideoError(
                f"{name} has frames of {context.width}x{context.height} pixels; the limit is {MAX_FRAME_PIXELS:,}.",
                name,
            )
        yield container, stream


def _file(path: str | Path) -> Path:
    name = str(path)
    try:
        path = Path(path)
        if not path.exists():
            raise VideoError(f"{name}: no such file.", name)
        if not path.is_file():
            raise VideoError(f"{name} is not a regular file.", name)
        if path.stat().st_size == 0:
            raise VideoError(f"{name} is empty (0 bytes).", name)
        with path.open("rb"):
            return path
    except OSError as error:
        raise VideoError(f"{name}: cannot be read ({error.strerror or error}).", name) from error


def _pyav() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ImportError("Reading videos needs PyAV: pip install 'deepfake-detectors[video]'") from error


def _is_animation(head: bytes) -> bool:
    return head[:4] == b"GIF8" or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[:4] == b"\x89PNG"


def _is_picture(head: bytes) -> bool:
    return _is_animation(head) or head[:3] == b"\xff\xd8\xff" or head[:2] == b"BM" or head[:4] in (b"II*\0", b"MM\0*")


def _animated(path: Path) -> bool:
    with path.open("rb") as file:
        return _is_animation(file.read(16))


def _animation_format(path: Path) -> str:
    with path.open("rb") as file:
        return {b"GIF": "gif", b"RIF": "webp"}.get(file.read(3), "png")


def _animation_times(path: Path, name: str, max_pixels: int) -> list[float]:
    try:
        return animation_times(path, max_pixels=max_pixels)
    except InputImageError as error:
        raise VideoError(str(error), name) from error


def _animation_images(path: Path, name: str, numbers: list[int], max_pixels: int) -> Iterator[Image.Image]:
    try:
        yield from animation_frames(path, numbers, max_pixels=max_pixels)
    except InputImageError as error:
        raise VideoError(str(error), name) from error
