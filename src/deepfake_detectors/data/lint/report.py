"""The report of a lint: `lint.json` for programs, `report.md` or `report.html` with histograms for readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from deepfake_detectors.data.lint.findings import LEVELS, LintResult, control_rows
from deepfake_detectors.data.lint.shortcuts import NUMBERS
from deepfake_detectors.evaluation.plots import COLOURS, figure_png, new_figure
from deepfake_detectors.markup import as_markdown, html_page
from deepfake_detectors.outputs import folder_lock, opened_whole, write_bytes, write_json, write_text

__all__ = ["FORMATS", "write_report"]

FORMATS = ("html", "markdown")
RESULT_FILE, MEASUREMENTS_FILE = "lint.json", "pictures.parquet"
HEADINGS = {
    "error": "Errors: a detector can use these instead of the forgery, or scores will be wrong",
    "warning": "Warnings",
    "note": "Notes",
    "ok": "Checked and not found",
}
NUMBERS_SHOWN = {**NUMBERS, "jpeg_quality": "JPEG quality"}
BARS = {"format": "file format", "size": "size"}
SHADES = ("#3b76af", "#e08214", "#7a7a7a", "#5aa469", "#a35ea8", "#c9b03c", "#8c5a3c", "#d4689b")
BINS = 30


def write_report(result: LintResult, folder: str | Path, format: str = "html") -> Path:
    """Write `lint.json`, `pictures.parquet` (one row of measurements per image), and the report with its histograms.

    Args:
        result: from `lint_dataset`.
        folder: created if missing; files of an earlier report in it are replaced.
        format: `"html"`: one file with the histograms inside; `"markdown"`: `report.md` beside PNG files.

    Returns:
        The report.

    Raises:
        ValueError: for any other format, or if another process is writing a report there.
        OSError: if the folder cannot be written.
        ImportError: if matplotlib is not installed.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, expected {' or '.join(FORMATS)}.")
    folder = Path(folder)
    plots = draw_histograms(result.rows) if len(result.rows) else {}
    text = render_markdown(result, {name: plot.caption for name, plot in plots.items()})
    name, outdated = ("report.md", "report.html") if format == "markdown" else ("report.html", "report.md")
    with folder_lock(folder):
        if format == "html":
            text = html_page(f"Lint of {result.name}", text, {file: plot.content for file, plot in plots.items()})
            plots = {}  # they are inside
        for file, plot in plots.items():
            write_bytes(folder / file, plot.content)
        if len(result.rows):
            with opened_whole(folder / MEASUREMENTS_FILE, "wb") as measurements:
                result.rows.to_parquet(measurements, index=False)
        write_json(folder / RESULT_FILE, result.to_dict(), indent=1)
        write_text(folder / name, text)
        # Of an earlier run, which may have had more of them.
        for file in (outdated, *(f"{column}.png" for column in (*NUMBERS_SHOWN, *BARS))):
            if file not in plots:
                (folder / file).unlink(missing_ok=True)
    return folder / name


def render_markdown(result: LintResult, plots: dict[str, str]) -> str:
    """The report as Markdown; `plots` are file names with their captions."""
    total = sum(row["pictures"] for row in result.counts)
    levels = {level: [item for item in result.findings if item.level == level] for level in LEVELS}
    summary = ", ".join(f"{len(found)} {level}" for level, found in levels.items())
    lines = [f"# Lint of {as_markdown(result.name)}", "", f"{total} images. Findings: {summary}.", ""]
    if controls := control_rows(item.to_dict() for item in result.findings):
        lines += ["## What a detector can reach without seeing an image", ""]
        lines += [f"| {' | '.join(controls[0])} |", "| --- | --- | ---: | --- | ---: | ---: |"]
        lines += [f"| {' | '.join(map(as_markdown, row.values()))} |" for row in controls]
        lines += ["", "A detector's AUC on this dataset only means something if it is above these values.", ""]
    for level, found in levels.items():
        if found:
            lines += [f"## {HEADINGS[level]}", ""]
            lines += [f"- `{item.code}` {as_markdown(item.message)}" for item in found] + [""]
    lines += ["## Images", "", "| split | label | manipulation | images |", "| --- | --- | --- | ---: |"]
    lines += [
        f"| {as_markdown(row['split'])} | {row['label']} | {as_markdown(row['manipulation'])} | {row['pictures']} |"
        for row in result.counts
    ]
    if plots:
        lines += ["", "## Histograms", ""]
        lines += [line for name, caption in plots.items() for line in (f"![{caption}]({name})", "")]
    return "\n".join(lines).rstrip() + "\n"


class Plot(NamedTuple):
    """A PNG file, and what it shows."""

    caption: str
    content: bytes


def draw_histograms(rows: pd.DataFrame) -> dict[str, Plot]:
    """Draw one PNG per measured attribute.

    Args:
        rows: from `shortcuts.add_attributes`.

    Returns:
        Plots by file name. An attribute that is constant over the whole set gets none.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    shown = {}
    for column, name in NUMBERS_SHOWN.items():
        values = rows[column].astype("Float64").astype(np.float64)
        if values.nunique() > 1:
            content = figure_png(_histograms(rows, values, name))
            shown[f"{column}.png"] = Plot(f"{name.capitalize()}, shares of each class", content)
    for column, name in BARS.items():
        if rows[column].nunique() > 1:
            content = figure_png(_bars(rows, column, name))
            shown[f"{column}.png"] = Plot(f"{name.capitalize()} by kind of image", content)
    return shown


def _histograms(rows: pd.DataFrame, values: pd.Series, name: str) -> Any:
    """One panel per split with the same bins, so that splits can be compared, too."""
    splits = rows["split"].drop_duplicates().tolist()
    # Single giants would press all others into one bin; they are counted in the last.
    low, high = np.nanpercentile(values, [0, 99.5])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    figure, first = new_figure(6.4, 1.0 + 2.4 * len(splits))
    first.remove()
    for place, split in enumerate(splits):
        axes = figure.add_subplot(len(splits), 1, place + 1)
        for label, colour in COLOURS.items():
            chosen = values[(rows["split"] == split) & (rows["label"] == label)].dropna()
            if len(chosen):
                # Shares, not counts: of a rare class nothing would be seen beside a common one.
                weights = np.full(len(chosen), 1 / len(chosen))
                clipped = np.clip(chosen, edges[0], edges[-1])
                axes.hist(clipped, edges, weights=weights, alpha=0.6, color=colour, label=f"{label} ({len(chosen)})")
        axes.set(title=str(split), ylabel="share of the class")
        axes.legend(framealpha=0.9, fontsize=8)
    axes.set_xlabel(f"{name} (the last bin contains everything larger)" if values.max() > edges[-1] else name)
    figure.tight_layout()
    return figure


def _bars(rows: pd.DataFrame, column: str, name: str) -> Any:
    """One stacked bar per split and manipulation: the share of each value."""
    kinds = rows["split"] + ", " + rows["manipulation"].fillna(rows["label"])
    kinds = kinds.where(rows["label"] == "fake", rows["split"] + ", real")
    common = rows[column].value_counts().index[: len(SHADES) - 1].tolist()
    values = rows[column].where(rows[column].isin(common), "other")
    shares = pd.crosstab(kinds, values, normalize="index")
    shares = shares[[*common, *(["other"] if "other" in shares else [])]]
    figure, axes = new_figure(6.4, 1.4 + 0.4 * len(shares))
    left = np.zeros(len(shares))
    for value, shade in zip(shares.columns, SHADES, strict=False):
        axes.barh(range(len(shares)), shares[value], 0.75, left=left, color=shade, label=str(value))
        left += shares[value].to_numpy()
    counts = kinds.value_counts()
    axes.set_yticks(range(len(shares)), [f"{kind} ({counts[kind]})" for kind in shares.index])
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.set(xlim=(0, 1), xlabel="share of the images", title=name.capitalize())
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
    return figure
