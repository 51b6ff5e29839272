"""Checkpoint folders and files: safe reading of official pickles, atomic writing of ours."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.utils import CONFIG_NAME

from deepfake_detectors.files import read_json_object
from deepfake_detectors.outputs import written_whole

__all__ = [
    "LLAMA_FIELDS",
    "TOKENIZER_FILES",
    "IgnoredObject",
    "has_tokenizer",
    "ignored_dict",
    "new_checkpoint",
    "read_config",
    "read_tensors",
]

# Fields of a Llama config for sizes and tokens.
LLAMA_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "rms_norm_eps", "rope_theta", "max_position_embeddings", "bos_token_id", "eos_token_id"),
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.txt")
# index -> pattern of the weights that it lists, in the order in which `from_pretrained` looks for them
# From an older checkpoint in the same folder, these would be mistaken for part of a new one.
STALE = ("*.safetensors", "*.safetensors.index.json")
# Errors of the safe unpickler for bytes that are not a complete pickle.
UNREADABLE = (
    OSError,
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
    """Replaces an object in a pickle that is not needed; its state is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


def ignored_dict(*_: Any) -> dict[Any, Any]:
    """Replace the constructor of a dict type that the safe unpickler cannot fill."""
    return {}


def read_tensors(path: Path, *, allow: Sequence[Any] = (), inside: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """Read the tensors of a `.safetensors` file or of a PyTorch pickle, on the CPU.

    Args:
        path: the file.
        allow: types in this kind of pickle in addition to PyTorch's own, for `torch.serialization.safe_globals`:
            `(stand-in, "module.name")`.
        inside: possible keys of the state dict in the pickled dict; the first existing one is used.

    Raises:
        ValueError: if the file is missing or damaged, contains other classes, or is not a dict of tensors.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {kind}; pass the official checkpoint file itself.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        with torch.serialization.safe_globals(list(allow)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # PyTorch's own message recommends turning the protection off.
        match = re.search(r"WeightsUnpickler error: *\n*(.+)", str(error))
        reason = match[1].strip() if match else str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path} could not be read safely: {reason}. It is damaged, not a PyTorch checkpoint, or contains "
            "classes that do not occur in official files of this family. These are refused, because pickles run code."
        ) from error
    for key in inside:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ValueError(
            f"{path} does not contain a state dict (a dict of names and tensors, or one under {list(inside)})."
        )
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """Return the fields of a folder's config.json, or an empty dict without one.

    Raises:
        ValueError: if it is not a JSON object.
    """
    path = folder / CONFIG_NAME
    return read_json_object(path) if path.is_file() else {}


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder has a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


@contextmanager
def new_checkpoint(output: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a folder to write a checkpoint to; it becomes `output` if the block ends without an error.

    Args:
        output: a new or empty folder; with `overwrite` also one with a checkpoint.
        overwrite: replace the checkpoint in `output`. Other files in it are kept, except weights.

    Raises:
        ValueError: if `output` is in use.
    """
    remedy = "choose another `output`"
    if not overwrite:
        remedy += ", or replace the checkpoint in it with `overwrite`"
    with written_whole(output, replace=overwrite, remedy=remedy) as folder:
        yield folder
        if Path(output).is_dir():
            _carry_over(Path(output), folder)


def _carry_over(source: Path, target: Path) -> None:
    """Add files that only `source` has to `target`, except stale weights, as hard links if possible."""
    left_out = {path.name for path in target.iterdir()}
    left_out |= {path.name for path in source.iterdir() if any(fnmatch(path.name, pattern) for pattern in STALE)}

    def ignored(folder: str, names: list[str]) -> set[str]:
        return left_out & set(names) if Path(folder) == source else set()

    shutil.copytree(source, target, symlinks=True, ignore=ignored, copy_function=_link_or_copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
