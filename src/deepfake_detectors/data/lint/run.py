"""Measure every image once, then look for what separates the classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from deepfake_detectors.data.lint.duplicates import (
    MAX_RADIUS,
    find_duplicates,
    find_near_duplicates,
    find_overlaps,
    find_pairs,
)
from deepfake_detectors.data.lint.findings import LintResult, worst_first
from deepfake_detectors.data.lint.leaks import find_leaks
from deepfake_detectors.data.lint.measures import SCHEMA, Measuring, Picture
from deepfake_detectors.data.lint.metadata_classifier import find_metadata_score
from deepfake_detectors.data.lint.report import FORMATS, write_report
from deepfake_detectors.data.lint.shortcuts import (
    add_attributes,
    count_rows,
    find_imbalance,
    find_misnamed,
    find_repeats,
    find_shortcuts,
)
from deepfake_detectors.data.lint.sources import Source, open_source
from deepfake_detectors.dataset_scripts._builder import Finding

__all__ = ["NEAR_RADIUS", "lint_dataset", "measure_source", "require_libraries"]

# Of 64 bits. On 1483 face crops of DD-VQA, 311 of the 313 pairs within it are two versions of one video, and none
# lies across the splits, which share no video; from 8 on unrelated faces come in.
NEAR_RADIUS = 4
CHUNK, GROUP = 256, 8  # pictures read at a time, and measured by a thread at a time


def lint_dataset(
    source: str | Path | Source,
    data_dir: str | Path | None = None,
    config: str | None = None,
    options: dict[str, Any] | None = None,
    *,
    against: str | Path | Source | None = None,
    output: str | Path | None = None,
    format: str = "html",
    near: int = NEAR_RADIUS,
    max_pixels: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> LintResult:
    """Look for what separates real from fake other than the forgery: shortcuts, duplicates, overlaps and imbalance.

    Images are read one after the other and not kept; each needs less than 1 kB of memory afterwards.

    Args:
        source: a dataset, a folder of Parquet or of images as `open_source` takes them, or a `Source` from there,
            which has the next three already.
        data_dir, config, options: as in `open_source`.
        against: a second dataset, such as the one to test on: only look for images, near-duplicates, videos and
            persons that both have.
        output: folder for `lint.json`, the report and all measurements; see `write_report`. Nothing is written if
            `None`.
        format: of the report, `"html"` or `"markdown"`.
        near: bits of 64, 0 to 15, in which perceptual hashes of near-duplicates may differ.
        max_pixels: width times height of an image that is decoded, by default 100 million.
        progress: called with the number of rows measured since the last call.

    Raises:
        ImportError: if a library of the extra `lint` is not installed, with the command that installs it.
        ValueError: for a source without images, another `format` or `near`, an `output` that is a file or that
            another process is writing; and as `open_source`.
        FileNotFoundError: for missing raw files.
    """
    require_libraries()
    if format not in FORMATS:
        raise ValueError(f"`format` is {format!r}, expected {' or '.join(FORMATS)}.")
    if not 0 <= near <= MAX_RADIUS:
        raise ValueError(f"`near` is {near}, expected 0 to {MAX_RADIUS} of the 64 bits; with more, hashes say little.")
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        raise ValueError(f"`output` {output} is a file; choose a folder.")
    if not isinstance(source, Source):
        source = open_source(source, data_dir, config, options, max_pixels)
    elif data_dir is not None or config is not None or options or max_pixels is not None:
        raise ValueError(
            "`data_dir`, `config`, `options` and `max_pixels` belong to a source given by name, not to an opened one."
        )
    if against is None:
        result = _lint(source, near, progress)
    else:
        other = against if isinstance(against, Source) else open_source(against, max_pixels=max_pixels)
        rows = [measure_source(part, progress) for part in (source, other)]
        findings = find_leaks(rows[0], rows[1], (source.name, other.name), near)
        both = pd.concat([part.assign(split=name) for part, name in zip(rows, (source.name, other.name), strict=True)])
        result = LintResult(f"{source.name} versus {other.name}", worst_first(findings), count_rows(both))
    if output is not None:
        write_report(result, output, format)
    return result


def measure_source(source: Source, progress: Callable[[int], None] | None = None) -> pd.DataFrame:
    """Return the measurements of a source, one row per image, with `error` where it cannot be decoded.

    Raises:
        ValueError: for a source without any image.
    """
    return _once(_measured_rows(source, progress))


def _measured_rows(source: Source, progress: Callable[[int], None] | None) -> pd.DataFrame:
    measured = list(_measure(source, progress))
    if not measured:
        raise ValueError(f"{source.name} does not contain any images.")
    return pa.concat_tables(measured).to_pandas()


def _once(rows: pd.DataFrame) -> pd.DataFrame:
    """Each image once, even if several rows of questions contain it."""
    return rows.drop_duplicates("picture").drop(columns="picture").reset_index(drop=True)


def _lint(source: Source, near: int, progress: Callable[[int], None] | None) -> LintResult:
    rows = _measured_rows(source, progress)
    findings = find_repeats(rows)
    rows = _once(rows)
    findings += source.remarks
    findings += _unreadable(rows)
    findings += find_imbalance(rows) + find_overlaps(rows) + find_pairs(rows)
    readable = add_attributes(rows[rows["error"].isna()].reset_index(drop=True))
    if len(readable):
        findings += find_duplicates(readable) + find_near_duplicates(readable, near)
        findings += find_misnamed(readable) + find_shortcuts(readable) + find_metadata_score(readable)
    return LintResult(source.name, worst_first(findings), count_rows(rows), readable)


def require_libraries() -> None:
    """Raise an `ImportError` that says what to install, before anything is read."""
    try:
        import imagehash  # noqa: F401
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Linting needs {error.name}, which is not installed: pip install 'deepfake-detectors[lint]'"
        ) from error


def _measure(source: Source, progress: Callable[[int], None] | None) -> Iterator[pa.Table]:
    schema = SCHEMA.append(pa.field("picture", pa.string()))
    measuring = Measuring(source.max_pixels)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding and hashing release the interpreter
        while chunk := list(islice(source.pictures, CHUNK)):
            groups = [chunk[start : start + GROUP] for start in range(0, len(chunk), GROUP)]
            rows = [row for group in pool.map(measuring.rows, groups) for row in group]
            columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in SCHEMA.names}
            columns["picture"] = [_picture_key(picture, row) for picture, row in zip(chunk, rows, strict=True)]
            yield pa.table(columns, schema=schema)
            if progress is not None:
                progress(len(chunk))


def _picture_key(picture: Picture, row: dict[str, Any]) -> str:
    """Text that is the same in all rows of a picture: in sets of questions it stands in many."""
    if isinstance(picture.content, Path):
        return f"{picture.split}\0{picture.content}"
    same = [row["file_digest"], picture.name, picture.split, picture.label, row["video_id"], row["group_id"]]
    return "\0".join(map(str, same)) if row["file_digest"] else picture.id


def _unreadable(rows: pd.DataFrame) -> list[Finding]:
    findings = []
    for split, part in rows[rows["error"].notna()].groupby("split", sort=False):
        shown = "; ".join(f"{row.id}: {str(row.error).rstrip('.')}" for row in part.head(3).itertuples())
        more = f"; and {len(part) - 3} more" if len(part) > 3 else ""
        details = {"pictures": len(part), "examples": part["id"].head(10).tolist()}
        text = f"{len(part)} image(s) of {split} cannot be decoded and are excluded below: {shown}{more}."
        findings.append(Finding("error", text, "unreadable", str(split), details))
    return findings
