"""Reads official checkpoint files without running what a pickle may carry."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

__all__ = ["IgnoredObject", "ignored_dict", "read_tensors"]

# What the safe unpickler raises on bytes that are no pickle, or half of one.
UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    struct.error,
    IndexError,
    KeyError,
    ValueError,
    AttributeError,
    TypeError,
)


class IgnoredObject:
    """Stands for an object in a pickle that nobody needs; its state is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


def ignored_dict(*_: Any) -> dict[Any, Any]:
    """Stands for the constructor of a dict type that the safe unpickler cannot fill."""
    return {}


def read_tensors(path: Path, *, allow: Sequence[Any] = (), inside: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """Tensors of a `.safetensors` file or of a PyTorch pickle, on the CPU.

    Args:
        path: the file.
        allow: what besides PyTorch's own types this kind of pickle is known to hold, as taken by
            `torch.serialization.safe_globals`: `(stand-in, "module.name")`.
        inside: keys under which the state dict may lie in the pickled dict; the first that exists is taken.

    Raises:
        ValueError: if the file is missing, damaged, holds other classes, or is not a dict of tensors.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {kind}; give the official checkpoint file itself.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        with torch.serialization.safe_globals(list(allow)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # PyTorch's own message advises to switch the protection off.
        match = re.search(r"WeightsUnpickler error: *\n*(.+)", str(error))
        reason = match[1].strip() if match else str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path} could not be read safely: {reason}. It is damaged, not a PyTorch checkpoint, or holds classes "
            "that no official file of this family holds; pickles run code, so those are refused."
        ) from error
    for key in inside:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ValueError(f"{path} holds no state dict (a dict of names and tensors, or one under {list(inside)}).")
    return content
