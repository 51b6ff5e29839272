"""What a call of the pipeline is given: one picture or many, tables of them, and what is asked about each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from .conversation_turns import turns_per_picture
from .image_loading import InputImageError

__all__ = ["Asked", "asked_pictures", "is_single", "readable_rows"]

SINGLE_INPUTS = (str, os.PathLike, bytes, bytearray, memoryview, Mapping, Image.Image, np.ndarray, torch.Tensor)


def is_single(inputs: Any) -> bool:
    """Return whether this is one picture, in whatever form."""
    return isinstance(inputs, SINGLE_INPUTS) or hasattr(inputs, "read")


def _column(table: Any) -> Any:
    """The column of a pandas table that holds its pictures; a single column as it is."""
    if not hasattr(table, "columns"):
        return table
    if "image" not in table.columns:
        names = ", ".join(map(str, table.columns))
        raise InputImageError(f"a table with the columns {names}: pass one of them, or name it 'image'.", "a table")
    return table["image"]


def readable_rows(inputs: Any) -> Dataset | None:
    """What has rows by number, as a dataset; `None` for everything else."""
    if hasattr(inputs, "iloc"):  # pandas: by position, because labels may be in any order or have gaps
        return _ReadableRows(_column(inputs).to_numpy(dtype=object))
    return _ReadableRows(inputs) if hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__") else None


def asked_pictures(inputs: Any, own: Mapping[str, Sequence[Any]]) -> Any:
    """Lay each picture's question and history beside it.

    Raises:
        ValueError: for one picture, for inputs whose number is not known, or where the numbers differ.
    """
    named = " and ".join(own)
    rows = None if is_single(inputs) else inputs
    if not isinstance(rows, (list, tuple)):
        rows = None if rows is None else readable_rows(rows)
    if rows is None:
        raise ValueError(
            f"{named} is given one per picture, which needs a list of pictures, a dataset or a column of one; of a "
            f"single picture give {named} itself."
        )
    turns_per_picture(own.get("question"), own.get("history"), len(rows))
    beside = _AskedRows(rows, own)
    return [beside[index] for index in range(len(rows))] if isinstance(rows, (list, tuple)) else beside


@dataclass(frozen=True)
class Asked:
    """A picture, and what is asked about it."""

    image: Any
    turn: Mapping[str, Any]


class _ReadableRows(Dataset):
    """A dataset or a column whose rows may fail to decode, because `datasets` opens pictures by itself."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        try:
            row = self.rows[index]
            return row.as_py() if hasattr(row, "as_py") else row  # a cell of pyarrow
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            name = f"row {index}"
            return InputImageError(f"{name}: cannot be read ({type(error).__name__}: {error}).", name)


class _AskedRows(Dataset):
    """Rows, each with what is asked about it."""

    def __init__(self, rows: Any, own: Mapping[str, Sequence[Any]]) -> None:
        self.rows, self.own = rows, own

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Asked:
        return Asked(self.rows[index], {name: values[index] for name, values in self.own.items()})
