"""Where images come from: files, Parquet and WebDataset shards, datasets, by path or by any URL that fsspec opens.

A source is split into parts that can be read separately: a list of files, a range of rows, some members of a tar.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from deepfake_detectors.files import PICTURE_SUFFIXES, expand_inputs
from deepfake_detectors.modeling.image_downloading import URL_MAX_BYTES, URL_TIMEOUT, download
from deepfake_detectors.modeling.image_sources import (
    InputImageError,
    describe_image_source,
    open_regular_file,
    without_credentials,
)

__all__ = ["SHARD_SUFFIXES", "Entry", "Stretch", "find_stretches"]

WEB = ("http://", "https://")  # of images these are downloaded by the loader of images, with its limits
SHARD_SUFFIXES = (".parquet", ".tar")
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
IMAGE_COLUMNS = ("image", "img", "picture", "bytes", "jpg", "jpeg", "png", "webp", "path", "file_name", "file", "url")
ID_COLUMNS = ("id", "__key__")
ROWS_READ = 64  # of a Parquet file at once: rows contain whole images
# What tells one state of a remote file from another, beside its size; stores have different words for it.
VERSIONS = (
    "ETag",
    "etag",
    "md5",
    "md5Hash",
    "checksum",
    "blob_id",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)


@dataclass(frozen=True)
class Entry:
    """One image of a source.

    Attributes:
        id: unique in the source.
        source: the file, URL or shard that contains it.
        content: its bytes; or why they cannot be read; `None` for an empty cell of a table.
    """

    id: str
    source: str
    content: bytes | InputImageError | None


class Stretch:
    """A part of a source that is read on its own.

    Attributes:
        state: text that changes when what is read changes.
        size: number of entries.
    """

    state: str
    size: int

    def read(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, Entry]]:
        """Yield place and entry, in order.

        Args:
            places: only these, ascending, from 0; all if `None`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class FileStretch(Stretch):
    """Some image files.

    Attributes:
        names: id and path or URL of each.
    """

    names: tuple[tuple[str, str], ...]
    state: str

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.names)

    def read(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, Entry]]:
        for place in range(self.size) if places is None else places:
            name, path = self.names[place]
            yield place, Entry(name, without_credentials(path), _content(path))


@dataclass(frozen=True)
class TarStretch(Stretch):
    """Some members of an uncompressed tar, by their places in it, so that none before them is read.

    Attributes:
        path: path or URL of the tar.
        members: id, offset and size in bytes of each.
    """

    path: str
    members: tuple[tuple[str, int, int], ...]
    state: str

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.members)

    def read(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, Entry]]:
        with _opened(self.path) as file:
            for place in range(self.size) if places is None else places:
                name, offset, size = self.members[place]
                file.seek(offset)
                yield place, Entry(name, self.path, file.read(size))


@dataclass(frozen=True)
class ParquetStretch(Stretch):
    """Rows of a Parquet file.

    Attributes:
        path: path or URL of the file.
        prefix: of the ids of rows that have none.
        groups: row groups that contain the rows.
        first: number of the first row in the file.
        skipped: rows of the first group that come before it.
        image, id: names of the columns.
    """

    path: str
    prefix: str
    groups: tuple[int, ...]
    first: int
    skipped: int
    rows: int
    image: str
    id: str | None
    state: str

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.rows

    def read(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, Entry]]:
        import pyarrow.parquet as pq

        wanted = None if places is None else set(places)
        columns = [self.image, *([self.id] if self.id else [])]
        # Buffered beforehand, whole row groups of images would be in memory.
        with _opened(self.path) as file, pq.ParquetFile(file, pre_buffer=False) as table:
            place = -self.skipped
            for batch in table.iter_batches(ROWS_READ, row_groups=list(self.groups), columns=columns):
                if place + len(batch) > 0 and (wanted is None or wanted & set(range(place, place + len(batch)))):
                    for offset, row in enumerate(batch.to_pylist()):
                        at = place + offset
                        if 0 <= at < self.rows and (wanted is None or at in wanted):
                            yield at, self._entry(row, at)
                place += len(batch)
                if place >= self.rows:
                    return

    def _entry(self, row: dict[str, Any], place: int) -> Entry:
        name = None if self.id is None else row[self.id]
        return _cell_entry(
            row[self.image], str(name) if name is not None else f"{self.prefix}/{self.first + place}", self.path
        )


@dataclass(frozen=True)
class BrokenStretch(Stretch):
    """A shard that cannot be read: one row that says so."""

    id: str
    path: str
    why: str
    state: str
    size = 1

    def read(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, Entry]]:
        yield 0, Entry(self.id, self.path, InputImageError(self.why, self.path))


@dataclass(frozen=True)
class TableStretch(Stretch):
    """Rows of a `datasets.Dataset`."""

    table: Any
    first: int
    rows: int
    image: str
    id: str | None
    state: str

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.rows

    def read(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, Entry]]:
        for place in range(self.rows) if places is None else places:
            row = self.table[self.first + place]
            name = str(row[self.id]) if self.id is not None else str(self.first + place)
            yield place, _cell_entry(row[self.image], name, "dataset")


def _cell_entry(cell: Any, name: str, origin: str) -> Entry:
    """The entry of a cell: bytes, a path, or both in a dict as `datasets` stores them."""
    if isinstance(cell, dict):
        content, path = cell.get("bytes"), cell.get("path")
        if content is not None:
            return Entry(name, origin, content)
        cell = path
    if isinstance(cell, str):
        if "://" not in cell and not Path(cell).is_absolute() and "://" not in origin:
            cell = str(Path(origin).parent / cell)
        return Entry(name, without_credentials(cell), _content(cell))
    return Entry(name, origin, cell)


def _content(path: str) -> bytes | InputImageError:
    """The bytes of a file, or why it cannot be read."""
    name = describe_image_source(path)
    try:
        if path.lower().startswith(WEB):
            return download(path, name, URL_TIMEOUT, URL_MAX_BYTES, allow_private_hosts=False)
        if "://" in path:
            store, inside = fsspec.core.url_to_fs(path)
            return store.cat_file(inside)
        with open_regular_file(path, name) as file:
            return file.read()
    except InputImageError as error:
        return error
    except OSError as error:
        return InputImageError(f"{name}: cannot be read ({error}).", name)


def _opened(path: str) -> IO[bytes]:
    return fsspec.open(path, "rb").open() if "://" in path else Path(path).open("rb")


# ---- what there is --------------------------------------------------------------------------------------------------


def find_stretches(
    source: Any, rows: int, image_column: str | None = None, outside: Path | None = None
) -> list[Stretch]:
    """Search a source and split it.

    Args:
        source: a folder (searched recursively for images and shards), a file, a glob, a URL of any protocol of
            fsspec, several of these in a list, or a `datasets.Dataset`.
        rows: images in a stretch.
        image_column: column of Parquet files and datasets with the images, or their paths; looked for if `None`.
        outside: folder of the results, which must not be inside a searched folder.

    Raises:
        ValueError: if there are no images, for a shard that cannot be read, and for a table without an image column.
        OSError: for a store that is not reachable.
    """
    if hasattr(source, "features") and hasattr(source, "select"):
        return _cut_table(source, rows, image_column)
    names = [str(source)] if isinstance(source, (str, Path)) else [str(name) for name in source]
    if not names:
        raise ValueError("`source` is empty: pass a folder, a glob, a shard or a URL.")
    root = names[0] if len(names) == 1 else None
    found: list[str] = []
    for name in names:
        found += _listed(name, outside)
    found = list(dict.fromkeys(found))
    shards = [path for path in found if path.lower().endswith(SHARD_SUFFIXES)]
    if packed := [path for path in found if path.lower().endswith(COMPRESSED_TARS)]:
        raise ValueError(
            f"{packed[0]} is compressed, so its images cannot be read one by one; use an uncompressed .tar."
        )
    files = [path for path in found if not path.lower().endswith(SHARD_SUFFIXES)]
    stretches: list[Stretch] = []
    for start in range(0, len(files), rows):
        chosen = tuple((_relative(path, root), path) for path in files[start : start + rows])
        stretches.append(FileStretch(chosen, "\n".join(_file_state(path) for _, path in chosen)))
    for path in shards:
        cut = _cut_parquet if path.lower().endswith(".parquet") else _cut_tar
        stretches += cut(path, _relative(path, root), rows, image_column)
    if not stretches:
        raise ValueError(f"There are no images in {', '.join(names[:3])}.")
    return stretches


def _listed(name: str, outside: Path | None) -> list[str]:
    """The files of one name, sorted."""
    suffixes = (*PICTURE_SUFFIXES, *SHARD_SUFFIXES, *COMPRESSED_TARS)
    if "://" in name and not (name.lower().startswith(WEB) and not name.lower().endswith(SHARD_SUFFIXES)):
        store, path = fsspec.core.url_to_fs(name)
        if any(mark in path for mark in "*?["):
            paths = store.glob(path)
        elif store.isdir(path):
            paths = [each for each in store.find(path) if each.lower().endswith(suffixes)]
        else:
            return [name]
        return [store.unstrip_protocol(each) for each in sorted(paths)]
    if outside is not None and Path(name).is_dir() and outside.resolve().is_relative_to(Path(name).resolve()):
        raise ValueError(f"`output` {outside} is inside the source {name}; choose a folder outside it.")
    inputs = expand_inputs([name], recursive=True, suffixes=frozenset(suffixes) | {".gz", ".bz2", ".xz", ".zst"})
    if name in inputs.faults:
        raise ValueError(inputs.faults[name])
    # What cannot be read in a folder becomes a row that says why.
    return sorted(
        path for path in (*inputs.pictures, *inputs.faults) if path == name or path.lower().endswith(suffixes)
    )


def _relative(path: str, root: str | None) -> str:
    """The id of a file: its path in the only folder that is read, else its path as given."""
    if root is not None and "://" not in path and Path(root).is_dir():
        return Path(path).relative_to(root).as_posix()
    if root is not None and "://" in root and not root.lower().startswith(WEB):
        store, inside = fsspec.core.url_to_fs(root)
        above = store.unstrip_protocol(inside).rstrip("/") + "/"
        if path.startswith(above):
            return path[len(above) :]
    return without_credentials(path)


def _file_state(path: str) -> str:
    if path.lower().startswith(WEB):
        return path
    if "://" in path:
        store, inside = fsspec.core.url_to_fs(path)
        facts = store.info(inside)
        version = next((str(facts[key]) for key in VERSIONS if facts.get(key) is not None), "")
        return f"{path} {facts.get('size')} {version}"
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # becomes a row with an error
        return f"{path} unreadable"
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def _cut_tar(path: str, name: str, rows: int, image_column: str | None) -> list[Stretch]:
    members: list[tuple[str, int, int]] = []
    state = _file_state(path)
    with _opened(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if member.isfile() and PurePosixPath(member.name).suffix.lower() in PICTURE_SUFFIXES:
                        members.append((f"{name}/{member.name}", member.offset_data, member.size))
        except tarfile.TarError as error:
            return [BrokenStretch(name, path, f"{path} is not a readable tar ({error}).", state)]
    return [
        TarStretch(path, tuple(members[start : start + rows]), f"{state} {start}")
        for start in range(0, len(members), rows)
    ]


def _cut_parquet(path: str, name: str, rows: int, image_column: str | None) -> list[Stretch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    state = _file_state(path)
    try:
        with _opened(path) as file, pq.ParquetFile(file) as table:
            columns = table.schema_arrow.names
            counts = [table.metadata.row_group(index).num_rows for index in range(table.metadata.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        return [BrokenStretch(name, path, f"{path} is not a readable Parquet file ({error}).", state)]
    image, id_column = _columns(columns, image_column, path)
    stretches: list[Stretch] = []

    def add(groups: Sequence[int], first: int, skipped: int, size: int) -> None:
        text = f"{state} {first} {size} {image} {id_column}"
        stretches.append(ParquetStretch(path, name, tuple(groups), first, skipped, size, image, id_column, text))

    first, group = 0, 0
    while group < len(counts):
        # Whole row groups while they fit, because a part of one costs reading what is before it.
        last, size = group + 1, counts[group]
        while last < len(counts) and size + counts[last] <= rows:
            size += counts[last]
            last += 1
        for skipped in range(0, size, rows):
            add(range(group, last), first + skipped, skipped, min(rows, size - skipped))
        first += size
        group = last
    return stretches


def _cut_table(table: Any, rows: int, image_column: str | None) -> list[Stretch]:
    import datasets

    image, id_column = _columns(list(table.features), image_column, "the dataset")
    if isinstance(table.features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image(decode=False))
    table = table.select_columns([image, *([id_column] if id_column else [])])
    if len(table) == 0:
        raise ValueError("There are no images in the dataset.")
    return [
        TableStretch(
            table, start, min(rows, len(table) - start), image, id_column, f"{table._fingerprint} {start} {rows}"
        )
        for start in range(0, len(table), rows)
    ]


def _columns(columns: Sequence[str], image_column: str | None, what: str) -> tuple[str, str | None]:
    image = image_column or next((name for name in IMAGE_COLUMNS if name in columns), None)
    if image is None or image not in columns:
        raise ValueError(
            f"{what} has no column {image_column or 'of images'!r}; its columns are {', '.join(columns)}. Set "
            "`image_column` to the one with "
            "images or their paths."
        )
    return image, next((name for name in ID_COLUMNS if name in columns and name != image), None)
