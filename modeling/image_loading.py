"""Turns whatever a user calls a picture into an upright RGB image, or says in one sentence why it cannot."""

from __future__ import annotations

import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from huggingface_hub.utils import get_session, httpx
from PIL import ExifTags, Image, ImageFile, ImageOps

__all__ = [
    "InputImageError",
    "animation_frames",
    "animation_times",
    "describe_image_source",
    "load_image",
    "read_image_facts",
]

ACCEPTED_SOURCES = (
    "a path (str or Path), an http(s) URL, bytes, a PIL image, a numpy array, a torch tensor, "
    'or a dict with "image", or with "bytes" and "path"'
)
ACCEPTED_ARRAYS = "uint8 of shape (H, W), (H, W, 3) or (H, W, 4), or float in [0, 1] of shape (H, W, 3)"
ACCEPTED_TENSORS = "uint8 of shape (H, W), (3, H, W) or (4, H, W), or float in [0, 1] of shape (3, H, W)"

# Detectors resize by the short edge: a 10000x1 file of a few kilobytes would become a picture of 12 gigabytes.
MAX_ASPECT_RATIO = 200

URL_TIMEOUT = 20.0  # seconds, for the whole download: a server that drips bytes must not hold a batch for ever
URL_MAX_BYTES = 100 * 2**20

# What Pillow's decoders raise on damaged files, found by flipping bytes in twenty formats.
DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,
    IndexError,
    TypeError,
    KeyError,
    struct.error,
    zlib.error,
)

# Of `Image.info`: what is not a text that somebody wrote into the file.
NOT_TEXT = frozenset(
    "exif icc_profile photoshop adobe jfif jfif_version jfif_unit jfif_density dpi transparency background version "
    "extension timestamp duration loop mp mpoffset".split()
)

_strict_decoding_lock = threading.Lock()


class InputImageError(ValueError):
    """An input that cannot be judged. The message starts with the input, and `source` holds it alone.

    Args:
        message: one sentence, naming the input, the fault and, where there is one, the remedy.
        source: the path or URL, or a short description of an input that has neither.
    """

    # One positional argument is enough, because worker processes rebuild exceptions from their message.
    def __init__(self, message: str, source: str = "") -> None:
        super().__init__(message)
        self.source = source


def load_image(source: Any, *, timeout: float = URL_TIMEOUT, max_bytes: int = URL_MAX_BYTES) -> Image.Image:
    """Load one picture as RGB, 8 bits per channel, upright.

    The format is recognised by content, never by file name. EXIF orientation is applied, 16-bit greyscale is scaled
    to 8 bits, transparent pixels are laid over white, and of an animation or a multi-page file the first frame is
    taken (of an open PIL image, the current one).

    Args:
        source: a path (`str` or `Path`), an http(s) URL, `bytes`, a PIL image, a numpy array (uint8 `(H, W)`,
            `(H, W, 3)` or `(H, W, 4)`; float in [0, 1] of shape `(H, W, 3)`, taken as `int(value * 255)`), a torch
            tensor (the same with channels first), or a dict: `{"image": ...}`, or the `{"bytes", "path"}` of an
            undecoded cell of `datasets`.
        timeout: seconds that a download may take.
        max_bytes: size that a download may have.

    Returns:
        `PIL.Image.Image` of mode `RGB`.

    Raises:
        InputImageError: whatever is wrong with the input. It is a `ValueError`.
    """
    return _load(source, describe_image_source(source), timeout, max_bytes)


def describe_image_source(source: Any) -> str:
    """Name an input in an error or a report: path or URL, or kind and size; at most 1000 characters."""
    if isinstance(source, (str, Path)):
        text = str(source)
        return (text if len(text) <= 1000 else f"{text[:997]}...") or "the empty path ''"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{len(source)} bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or f"PIL image ({source.mode}, {source.width}x{source.height})")
    if isinstance(source, np.ndarray):
        return f"numpy array of dtype {source.dtype} and shape {source.shape}"
    if isinstance(source, torch.Tensor):
        return f"torch tensor of dtype {str(source.dtype).removeprefix('torch.')} and shape {tuple(source.shape)}"
    if isinstance(source, Mapping):
        if source.get("path"):
            return describe_image_source(source["path"])
        if "image" in source:
            return describe_image_source(source["image"])
        if source.get("bytes") is not None:
            return describe_image_source(source["bytes"])
        return f"dict with the keys {sorted(map(str, source))}"
    return "None" if source is None else f"an object of type {type(source).__name__}"


def read_image_facts(source: str | Path) -> dict[str, Any]:
    """Read what an image file says of itself, without decoding its pixels.

    Args:
        source: a path.

    Returns:
        `format` (Pillow's name), `width` and `height` (as stored), `mode`, `frames`, `mime` (`None` if unknown),
        `exif` (name of a tag -> text) and `text` (name of a text chunk -> text). Texts have at most 2000 characters.

    Raises:
        InputImageError: if it cannot be read. It is a `ValueError`.
    """
    name = describe_image_source(source)
    with _decoding(name), Path(source).open("rb") as file, Image.open(file) as image:
        exif = image.getexif()
        tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
        info = {str(key): value for key, value in image.info.items()}
        return {
            "format": image.format,
            "mime": Image.MIME.get(image.format or ""),
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "frames": getattr(image, "n_frames", 1),
            "exif": {
                ExifTags.TAGS[tag]: _short_text(value)
                for tag, value in tags.items()
                if tag in ExifTags.TAGS and isinstance(value, (str, int, float, bytes))
            },
            "text": {
                key: _short_text(value)
                for key, value in info.items()
                if key not in NOT_TEXT and isinstance(value, (str, bytes)) and len(value) > 0
            },
        }


def _short_text(value: Any) -> str:
    text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
    return "".join(character if character.isprintable() else " " for character in text[:2000]).strip()


def _load(source: Any, name: str, timeout: float, max_bytes: int) -> Image.Image:
    if isinstance(source, Mapping):
        return _load(_unwrap(source, name), name, timeout, max_bytes)
    if isinstance(source, str) and "://" in source:
        if not source.lower().startswith(("http://", "https://")):
            raise InputImageError(f"{name}: of URLs, only http:// and https:// are read; download it first.", name)
        return _decode(BytesIO(_download(source, name, timeout, max_bytes)), name)
    if isinstance(source, (str, Path)):
        return _load_file(source, name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(BytesIO(source), name)
    if isinstance(source, Image.Image):
        with _decoding(name):
            return _to_rgb(source, name)
    if isinstance(source, torch.Tensor):
        return _to_rgb(_from_tensor(source, name), name)
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source, name), name)
    raise InputImageError(f"{name} is not a picture. Accepted: {ACCEPTED_SOURCES}.", name)


def _unwrap(source: Mapping[str, Any], name: str) -> Any:
    if "image" in source:
        return source["image"]
    if source.get("bytes") is not None:
        return source["bytes"]
    if source.get("path"):
        return source["path"]
    raise InputImageError(f"{name} holds no picture. Accepted: {ACCEPTED_SOURCES}.", name)


def _load_file(source: str | Path, name: str) -> Image.Image:
    if not str(source):
        raise InputImageError(f"{name} is not a file.", name)
    path = Path(source)
    try:
        if path.is_dir():
            raise InputImageError(f"{name} is a folder, not a picture; give the files in it.", name)
        with path.open("rb") as file:
            return _decode(file, name)
    except FileNotFoundError as error:
        raise InputImageError(f"{name}: no such file.", name) from error
    except PermissionError as error:
        raise InputImageError(f"{name}: permission denied.", name) from error
    except OSError as error:  # a name that the system cannot hold, a disk that fails
        raise InputImageError(f"{name}: cannot be read ({error.strerror or error}).", name) from error
    except ValueError as error:
        if isinstance(error, InputImageError):
            raise
        raise InputImageError(f"{name} is not a path ({error}).", name) from error


def _download(url: str, name: str, timeout: float, max_bytes: int) -> bytes:
    deadline = time.monotonic() + timeout
    content = bytearray()
    try:
        with get_session().stream("GET", url, timeout=timeout, follow_redirects=True) as response:
            if response.status_code != 200:
                raise InputImageError(
                    f"{name}: the server answered {response.status_code} {response.reason_phrase}.", name
                )
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > max_bytes:
                    raise InputImageError(f"{name}: larger than the limit of {max_bytes} bytes for a download.", name)
                if time.monotonic() > deadline:
                    raise InputImageError(f"{name}: not downloaded within {timeout:g} seconds.", name)
    except httpx.TimeoutException as error:
        raise InputImageError(f"{name}: no answer within {timeout:g} seconds.", name) from error
    # OSError: huggingface_hub's offline mode is a ConnectionError.
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise InputImageError(f"{name}: could not be downloaded ({error}).", name) from error
    return bytes(content)


def _decode(file: BinaryIO, name: str) -> Image.Image:
    if not file.read(1):
        raise InputImageError(f"{name} is empty (0 bytes).", name)
    file.seek(0)
    with _decoding(name), Image.open(file) as image:
        return _to_rgb(image, name)


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Decode strictly, and name the input in whatever goes wrong."""
    try:
        with _truncated_refused():
            yield
    except InputImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise InputImageError(
            f"{name} is not a picture in a format that Pillow reads (the content counts, not the file name).", name
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputImageError(f"{name}: refused as a decompression bomb ({error})", name) from error
    except DECODING_ERRORS as error:
        raise InputImageError(
            f"{name} cannot be decoded; the file is damaged or incomplete ({type(error).__name__}: {error}).", name
        ) from error


@contextmanager
def _truncated_refused() -> Iterator[None]:
    """Undo `ImageFile.LOAD_TRUNCATED_IMAGES` where another library has set it: a half-grey picture has no verdict."""
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        yield
        return
    with _strict_decoding_lock:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.format == "EPS":  # decoding it would run Ghostscript on an untrusted program
        raise InputImageError(f"{name} is a PostScript program, not a picture; convert it to PNG first.", name)
    if image.width == 0 or image.height == 0:
        raise InputImageError(f"{name} has no pixels ({image.width}x{image.height}).", name)
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise InputImageError(
            f"{name} is a strip of {image.width}x{image.height} pixels; the long edge may be at most "
            f"{MAX_ASPECT_RATIO} times the short one.",
            name,
        )
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bit(image, name)
    if image.mode == "F":
        raise InputImageError(f"{name} holds floating-point pixels without a known range; save it with 8 bits.", name)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _from_16_bit(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise InputImageError(
            f"{name} holds integers from {values.min()} to {values.max()}, expected 0 to 65535; save it with 8 bits.",
            name,
        )
    # 65535 = 255 * 257, so that 8-bit pictures widened to 16 bits come back exactly. Pillow's own conversion clips.
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _from_tensor(tensor: torch.Tensor, name: str) -> Image.Image:
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # unknown to numpy
        tensor = tensor.float()
    if tensor.ndim == 3:
        if tensor.shape[0] not in (3, 4):
            raise InputImageError(f"{name}: expected {ACCEPTED_TENSORS}.", name)
        tensor = tensor.permute(1, 2, 0)
    return _from_array(tensor.numpy(), name, accepted=ACCEPTED_TENSORS)


def _from_array(array: np.ndarray, name: str, accepted: str = ACCEPTED_ARRAYS) -> Image.Image:
    channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    floating = np.issubdtype(array.dtype, np.floating)
    if array.dtype == np.uint8:
        fits = channels in (3, 4) or array.ndim == 2
    else:
        fits = floating and array.ndim == 3 and channels == 3
    if not fits:
        raise InputImageError(f"{name}: expected {accepted}. Give several pictures as a list.", name)
    if array.size == 0:
        raise InputImageError(f"{name} has no pixels.", name)
    if floating:
        if not np.isfinite(array).all():
            raise InputImageError(f"{name} holds nan or infinite values; expected {accepted}.", name)
        if array.min() < 0 or array.max() > 1:
            raise InputImageError(
                f"{name} holds values from {array.min():g} to {array.max():g}; expected {accepted}. "
                "Give 0..255 as uint8, and pictures before, not after, normalisation.",
                name,
            )
        # Truncated, as torchvision's ToPILImage does; exact for 8-bit values that were divided by 255.
        array = (array * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def animation_times(path: str | Path) -> list[float]:
    """Return when the frames of an animation are shown.

    Args:
        path: a GIF, WebP or PNG file.

    Returns:
        `(frames + 1,)` seconds from the start: the beginning of every frame, then the end. Two numbers, and the second
        is 0, for a picture that does not move.

    Raises:
        InputImageError: as `load_image`.
    """
    name = describe_image_source(path)
    times = [0.0]
    with _animation(path, name) as image:
        count = getattr(image, "n_frames", 1)
        if count == 1:
            return [0.0, 0.0]
        for number in range(count):
            image.seek(number)
            image.load()  # WebP says how long a frame lasts only then
            # Browsers show a frame without a duration, or below 20 ms, for 100 ms.
            lasts = float(image.info.get("duration") or 0)
            times.append(times[-1] + (lasts if lasts >= 20 else 100.0) / 1000)
    return times


def animation_frames(path: str | Path, numbers: Sequence[int]) -> Iterator[Image.Image]:
    """Yield frames of an animation, as `load_image` gives a picture.

    Args:
        path: a GIF, WebP or PNG file.
        numbers: which frames, from 0, ascending.

    Raises:
        InputImageError: as `load_image`.
    """
    name = describe_image_source(path)
    with _animation(path, name) as image:
        for number in numbers:
            image.seek(number)
            yield _to_rgb(image, name)


@contextmanager
def _animation(path: str | Path, name: str) -> Iterator[Image.Image]:
    with _decoding(name), Path(path).open("rb") as file, Image.open(file, formats=("GIF", "WEBP", "PNG")) as image:
        yield image
