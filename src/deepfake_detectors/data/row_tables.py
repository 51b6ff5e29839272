"""Rows of a builder as Arrow tables with the content of the pictures, column by column."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepfake_detectors.dataset_scripts._builder import Unit

__all__ = ["row_tables"]


def row_tables(builder: Any, split: str, units: list[Unit], most_rows: int) -> Iterator[Any]:
    """Yield the rows of some units as `pyarrow.Table`s of at most `most_rows`, in order.

    The tables are those of `datasets` (`encode_example`, then `embed_table_storage`), but no row is cast as a whole,
    and no file is read again that the builder has read.

    Args:
        builder: from `make_builder`.
        split: for messages.
        units: of the split.
        most_rows: in a table.

    Raises:
        ValueError: for an id that occurs twice; and as `builder.examples`.
    """
    import pyarrow as pa

    schema = builder.info.features.arrow_schema
    columns = {name: _column(feature, schema.field(name).type) for name, feature in builder.info.features.items()}
    seen: set[str] = set()
    waiting = 0
    embedded, builder.embed_files = builder.embed_files, True
    try:
        for key, row in builder._generate_examples(units=units):
            if key in seen:
                raise ValueError(f"{split}: the id {key!r} occurs twice; keep one of the two files.")
            seen.add(key)
            for name, column in columns.items():
                column.add(row.get(name))
            waiting += 1
            if waiting == most_rows:
                yield pa.Table.from_arrays([column.take() for column in columns.values()], schema=schema)
                waiting = 0
        if waiting:
            yield pa.Table.from_arrays([column.take() for column in columns.values()], schema=schema)
    finally:
        builder.embed_files = embedded


class _Column:
    """Values of one column, encoded as they come, so that no decoded frame waits for its table.

    Args:
        encode: makes a value what Arrow takes.
        plain: type of the values that stand as they are.
        kind: Arrow type.
    """

    def __init__(self, encode: Callable[[Any], Any], plain: type, kind: Any) -> None:
        self.encode, self.plain, self.kind = encode, plain, kind
        self.cells: list[Any] = []

    def add(self, value: Any) -> None:
        self.cells.append(value if value is None or type(value) is self.plain else self.encode(value))

    def take(self) -> Any:
        """Return the array of what was added, and start over."""
        import pyarrow as pa

        cells, self.cells = self.cells, []
        return pa.array(cells, type=self.kind)


def _column(feature: Any, kind: Any) -> _Column:
    import datasets
    import pyarrow as pa
    from datasets.features.features import encode_nested_example

    if isinstance(feature, datasets.Image):
        return _Column(partial(_picture_cell, feature), type(None), kind)
    if isinstance(feature, datasets.Value) and pa.types.is_string(kind):
        return _Column(feature.encode_example, str, kind)
    if isinstance(feature, (datasets.Value, datasets.ClassLabel)):
        return _Column(feature.encode_example, type(None), kind)
    return _Column(partial(encode_nested_example, feature), type(None), kind)


def _picture_cell(feature: Any, value: Any) -> dict[str, Any]:
    """Content and bare name of a picture: a path, `{"bytes", "path"}`, or pixels, which are encoded."""
    cell = value if isinstance(value, dict) and value.get("bytes") is not None else feature.encode_example(value)
    content, path = cell["bytes"], cell["path"]
    return {
        "bytes": Path(path).read_bytes() if content is None else content,
        "path": None if path is None else os.path.basename(path),  # noqa: PTH119 - as `datasets` does
    }
