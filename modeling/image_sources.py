"""Accepted image sources, their names in messages, and conversion of arrays."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image

__all__ = [
    "ACCEPTED_SOURCES",
    "InputImageError",
    "array_to_image",
    "describe_image_source",
    "innermost",
    "open_regular_file",
    "read_file_object",
    "tensor_to_image",
    "without_credentials",
]

ACCEPTED_SOURCES = (
    "a path (str or Path), an http(s) URL, bytes, a binary file object, a PIL image, a numpy array, a torch tensor, "
    'or a dict with "image", or with "bytes" and "path"'
)
ACCEPTED_ARRAYS = "uint8 of shape (H, W), (H, W, 3) or (H, W, 4), or float in [0, 1] of shape (H, W, 3)"
ACCEPTED_TENSORS = "uint8 of shape (H, W), (3, H, W) or (4, H, W), or float in [0, 1] of shape (3, H, W)"
DEEPEST = 8  # dicts in dicts
MAX_OBJECT_BYTES = 2**30  # limit for a file object, whose size is unknown in advance
SECRET_PARAMETER = re.compile(r"([?&;][^=&;#]*(?:token|sig|secret|pass|key|auth|credential)[^=&;#]*=)[^&;#]*", re.I)


class InputImageError(ValueError):
    """Raised for an unusable input. The message starts with the input, which is also in `source`.

    Args:
        message: one sentence with the input, the fault and, if possible, the remedy.
        source: the path or URL, or a short description of any other input.
    """

    # It must work with one positional argument, because worker processes rebuild exceptions from their message.
    def __init__(self, message: str, source: str = "") -> None:
        super().__init__(message)
        self.source = source


def describe_image_source(source: Any) -> str:
    """Return a name for an input in at most 1000 characters: path, URL without credentials, or type and size."""
    for _ in range(DEEPEST):
        if not isinstance(source, Mapping):
            break
        if source.get("path"):
            source = source["path"]
        elif "image" in source:
            source = source["image"]
        elif source.get("bytes") is not None:
            source = source["bytes"]
        else:
            return f"dict with the keys {sorted(map(str, source))}"[:1000]
    if isinstance(source, (str, os.PathLike)):
        text = without_credentials(os.fsdecode(source))
        return (text if len(text) <= 1000 else f"{text[:997]}...") or "the empty path ''"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{len(source)} bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or f"PIL image ({source.mode}, {source.width}x{source.height})")
    if isinstance(source, np.ndarray):
        return f"numpy array of dtype {source.dtype} and shape {source.shape}"
    if isinstance(source, torch.Tensor):
        kind = f"torch tensor of dtype {str(source.dtype).removeprefix('torch.')}"
        return f"nested {kind}" if source.is_nested else f"{kind} and shape {tuple(source.shape)}"
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return name if isinstance(name, str) and name else f"a file object of type {type(source).__name__}"
    return "None" if source is None else f"an object of type {type(source).__name__}"


def without_credentials(text: str) -> str:
    """Return a URL with `***` for user, password and secret query values; return other text unchanged."""
    if "://" not in text:
        return text
    scheme, _, rest = text.partition("://")
    end = min((place for mark in "/?#" if (place := rest.find(mark)) >= 0), default=len(rest))
    _, at, host = rest[:end].rpartition("@")
    return SECRET_PARAMETER.sub(r"\1***", f"{scheme}://{'***@' if at else ''}{host}{rest[end:]}")


def innermost(source: Any, name: str) -> Any:
    """Return the image from a dict `{"image": ...}` or `{"bytes", "path"}`, which can be nested.

    Raises:
        InputImageError: for a dict without an image, or one that is nested too deeply or contains itself.
    """
    for _ in range(DEEPEST):
        if not isinstance(source, Mapping):
            return source
        if "image" in source:
            source = source["image"]
        elif source.get("bytes") is not None:
            source = source["bytes"]
        elif source.get("path"):
            source = source["path"]
        else:
            raise InputImageError(f"{name} does not contain an image. Accepted: {ACCEPTED_SOURCES}.", name)
    raise InputImageError(f"{name} contains itself, or dicts nested more than {DEEPEST} levels deep.", name)


def open_regular_file(path: str | os.PathLike[str], name: str) -> BinaryIO:
    """Open a regular file, not a pipe, device, socket or folder.

    Raises:
        InputImageError: with the reason.
    """
    try:
        if not os.fspath(path):
            raise InputImageError(f"{name} is not a file.", name)
        _require_regular(os.stat(path).st_mode, name)  # noqa: PTH116 - of any PathLike
        # Opening a pipe waits for its writer. O_NONBLOCK, because a pipe may just have replaced the file.
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        )
        try:
            _require_regular(os.fstat(descriptor).st_mode, name)
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    except InputImageError:
        raise
    except FileNotFoundError as error:
        raise InputImageError(f"{name}: no such file.", name) from error
    except PermissionError as error:
        raise InputImageError(f"{name}: permission denied.", name) from error
    except OSError as error:  # an invalid name, a failing disk, or a cycle of links
        raise InputImageError(f"{name}: cannot be read ({error.strerror or error}).", name) from error
    except (ValueError, TypeError) as error:
        raise InputImageError(f"{name} is not a path ({error}).", name) from error


def _require_regular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise InputImageError(f"{name} is a folder, not an image; pass the files in it.", name)
    if not stat.S_ISREG(mode):
        raise InputImageError(f"{name} is a pipe, socket or device, not a regular file; pass its content.", name)


def read_file_object(source: Any, name: str) -> bytes:
    """Return the whole content of an open file, and restore its position.

    Raises:
        InputImageError: for a file in text mode, a closed or failing one, or one larger than 1 GiB.
    """
    try:
        seekable = bool(getattr(source, "seekable", lambda: False)())
        place = source.tell() if seekable else 0
        if seekable:
            source.seek(0)
        content = source.read(MAX_OBJECT_BYTES + 1)
        if seekable:
            source.seek(place)
    except (OSError, ValueError, TypeError) as error:
        raise InputImageError(f"{name}: cannot be read ({error}).", name) from error
    if not isinstance(content, (bytes, bytearray)):
        raise InputImageError(f"{name} returns {type(content).__name__}, not bytes; open it with mode 'rb'.", name)
    if len(content) > MAX_OBJECT_BYTES:
        raise InputImageError(f"{name} is larger than the limit of {MAX_OBJECT_BYTES} bytes.", name)
    return bytes(content)


def tensor_to_image(tensor: torch.Tensor, name: str) -> Image.Image:
    """Convert a tensor to an image; see `load_image`."""
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized or tensor.is_meta:
        raise InputImageError(
            f"{name} is sparse, nested, quantized or on the meta device. Accepted: {ACCEPTED_TENSORS}.", name
        )
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # not supported by numpy
        tensor = tensor.float()
    if tensor.ndim == 3:
        if tensor.shape[0] not in (3, 4):
            raise InputImageError(f"{name}: expected {ACCEPTED_TENSORS}.", name)
        tensor = tensor.permute(1, 2, 0)
    try:
        array = tensor.numpy()
    except (TypeError, RuntimeError) as error:
        raise InputImageError(
            f"{name} cannot be converted to numpy ({error}). Accepted: {ACCEPTED_TENSORS}.", name
        ) from error
    return array_to_image(array, name, accepted=ACCEPTED_TENSORS)


def array_to_image(array: np.ndarray, name: str, accepted: str = ACCEPTED_ARRAYS) -> Image.Image:
    """Convert an array to an image; see `load_image`."""
    channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    floating = np.issubdtype(array.dtype, np.floating)
    if array.dtype == np.uint8:
        fits = channels in (3, 4) or array.ndim == 2
    else:
        fits = floating and array.ndim == 3 and channels == 3
    if not fits:
        raise InputImageError(f"{name}: expected {accepted}. Pass several images as a list.", name)
    if array.size == 0:
        raise InputImageError(f"{name} has no pixels.", name)
    if floating:
        if not np.isfinite(array).all():
            raise InputImageError(f"{name} contains nan or infinite values; expected {accepted}.", name)
        if array.min() < 0 or array.max() > 1:
            raise InputImageError(
                f"{name} has values from {array.min():g} to {array.max():g}; expected {accepted}. Pass 0..255 as "
                "uint8, and images before normalisation.",
                name,
            )
        # Truncated like torchvision's ToPILImage; exact for 8-bit values divided by 255.
        array = (array * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))
