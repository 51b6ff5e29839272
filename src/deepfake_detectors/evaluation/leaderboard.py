"""The tables of a benchmark: as data, CSV, Markdown, and a sortable page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from deepfake_detectors.markup import STYLE, as_markdown
from deepfake_detectors.outputs import folder_lock, write_json, write_text

__all__ = ["BYTES_PER_PIXEL", "LEADERBOARD_FILES", "METADATA_FOREST", "UNCHANGED", "Leaderboard", "Row"]

LEADERBOARD_FILES = tuple(f"leaderboard.{ending}" for ending in ("json", "csv", "md", "html"))
TEMPLATE = "leaderboard.html.jinja"
UNCHANGED = "as they are"
BYTES_PER_PIXEL, METADATA_FOREST = "bytes per pixel", "metadata forest"
METRICS = {  # column -> heading
    "auc": "AUC",
    "accuracy": "accuracy",
    "false_alarm_rate": "reals called fake",
    "miss_rate": "fakes missed",
    "eer": "equal error rate",
    "flip_rate": "verdicts flipped",
}
Metric = Mapping[str, "float | None"]


@dataclass
class Row:
    """One line of the leaderboard.

    Attributes:
        detector: its name, or that of a control.
        dataset: name of the dataset.
        variant: what was done to the images.
        kind: `"detector"` or `"control"`.
        metrics: name -> `{"value", "low", "high"}`.
        num_real, num_fake: number of images per class.
        threshold: P(fake) from which an image counts as fake; `None` for a control.
        unreadable: images that are excluded from all numbers.
        seconds_per_1000: seconds per thousand images on the machine of the run.
        words: caveats about the numbers, in sentences.
    """

    detector: str
    dataset: str
    variant: str = UNCHANGED
    kind: str = "detector"
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    num_real: int = 0
    num_fake: int = 0
    threshold: float | None = None
    unreadable: int = 0
    seconds_per_1000: float | None = None
    words: list[str] = field(default_factory=list)


@dataclass
class Leaderboard:
    """Result of `benchmark`.

    Attributes:
        rows: detectors and controls, in the order they were scored.
        differences: comparisons of two detectors on the same images: `dataset`, `first`, `second`, `pictures`,
            `auc_difference` and `accuracy_difference` (second minus first) with paired bootstrap intervals.
        leaks: overlap of test sets with training data.
        sets: name -> description of the dataset.
        failures: detector -> reason for missing rows.
        robustness, resamples, seed: as passed to `benchmark`.
    """

    rows: list[Row] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    leaks: list[dict[str, Any]] = field(default_factory=list)
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    robustness: str | None = None
    resamples: int = 1000
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the content of leaderboard.json."""
        return {
            "sets": self.sets,
            "leaks": self.leaks,
            "rows": [vars(row) for row in self.sorted_rows()],
            "mean_auc": self.mean_auc(),
            "differences": self.differences,
            "failures": self.failures,
            "robustness": self.robustness,
            "bootstrap": {"level": 0.95, "resamples": self.resamples, "seed": self.seed},
            "versions": {"deepfake-detectors": version("deepfake-detectors")},
        }

    def sorted_rows(self) -> list[Row]:
        """Return the rows by dataset and variant, the highest AUC first."""
        sets, variants = list(self.sets), list(dict.fromkeys(row.variant for row in self.rows))
        return sorted(
            self.rows, key=lambda row: (sets.index(row.dataset), variants.index(row.variant), -_number(row, "auc"))
        )

    def mean_auc(self) -> dict[str, dict[str, Any]]:
        """Return detector -> mean AUC over datasets with both classes, and their number; best first."""
        found: dict[str, list[float]] = {}
        for row in self.rows:
            value = row.metrics.get("auc", {}).get("value")
            if row.kind == "detector" and row.variant == UNCHANGED and value is not None:
                found.setdefault(row.detector, []).append(value)
        means = {name: {"mean": sum(values) / len(values), "sets": len(values)} for name, values in found.items()}
        return dict(sorted(means.items(), key=lambda item: -item[1]["mean"]))

    def warnings(self) -> list[str]:
        """Return what a reader must know before the numbers: leaks, caveats and failures."""
        told = [
            f"{leak['train']} and {leak['dataset']}: {leak['message']}"
            for leak in self.leaks
            if leak["level"] in ("error", "warning")
        ]
        for row in self.rows:
            area = row.metrics.get("auc", {})
            low, high = area.get("low"), area.get("high")
            # For a trained forest, less than 0.5 is chance; for a plain number it is as informative as more.
            below = high is not None and high < 0.5 and row.detector == BYTES_PER_PIXEL
            if row.kind == "control" and ((low is not None and low > 0.5) or below):
                told.append(f"The files of {row.dataset} reveal the class: {row.detector} alone has AUC {_text(area)}")
        told += [f"{row.detector} on {row.dataset}: {text}" for row in self.rows for text in row.words]
        return told + [f"{name} failed: {reason}" for name, reason in self.failures.items()]

    def save(self, directory: str | Path) -> list[Path]:
        """Write `leaderboard.json`, `.csv`, `.md` and `.html`.

        Args:
            directory: a folder, made if needed; files of the same names are replaced.

        Returns:
            The files.

        Raises:
            ValueError: if another process writes there.
        """
        folder = Path(directory)
        with folder_lock(folder):
            numbers, table, text, page = (folder / name for name in LEADERBOARD_FILES)
            return [
                write_json(numbers, self.to_dict()),
                write_text(table, self.to_csv()),
                write_text(text, self.to_markdown()),
                write_text(page, self.to_html()),
            ]

    def to_csv(self) -> str:
        """Return the rows as CSV, with columns for each value and both ends of its interval."""
        file = io.StringIO()
        columns = ["detector", "kind", "dataset", "variant"]
        for name in self._columns():
            columns += [name, f"{name}_low", f"{name}_high"]
        columns += ["threshold", "num_real", "num_fake", "unreadable", "seconds_per_1000"]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in self.sorted_rows():
            cells: list[Any] = [row.detector, row.kind, row.dataset, row.variant]
            for name in self._columns():
                entry = row.metrics.get(name, {})
                cells += [entry.get(part) for part in ("value", "low", "high")]
            writer.writerow([*cells, row.threshold, row.num_real, row.num_fake, row.unreadable, row.seconds_per_1000])
        return file.getvalue()

    def to_markdown(self) -> str:
        """Return the leaderboard as Markdown."""
        lines = ["# Leaderboard", ""]
        lines += [f"- {as_markdown(text)}" for text in self.warnings()] + [""] if self.warnings() else []
        if not self.leaks:
            lines += ["Leaks between these datasets and the training data of the detectors were not checked.", ""]
        columns = self._columns()
        heads = [
            "detector",
            "dataset",
            "pictures",
            *(METRICS[name] for name in columns),
            "real",
            "fake",
            "s per 1000",
        ]
        lines += [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
        for row in self.sorted_rows():
            name = f"*{as_markdown(row.detector)}* (control)" if row.kind == "control" else as_markdown(row.detector)
            cost = "" if row.seconds_per_1000 is None else f"{row.seconds_per_1000:.1f}"
            cells = [name, as_markdown(row.dataset), row.variant, *(_text(row.metrics.get(key)) for key in columns)]
            lines.append(f"| {' | '.join([*cells, str(row.num_real), str(row.num_fake), cost])} |")
        if self.differences:
            lines += ["", "## Differences on the same images", ""]
            lines += ["| dataset | A | B | images | AUC, B minus A | accuracy, B minus A |", f"|{' --- |' * 6}"]
            for item in self.differences:
                names = [as_markdown(item[key]) for key in ("dataset", "first", "second")]
                gaps = [_text(item[key]) for key in ("auc_difference", "accuracy_difference")]
                lines.append(f"| {' | '.join([*names, str(item['pictures']), *gaps])} |")
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """Return a self-contained page; a click on a heading sorts its table."""
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
        return template.render(
            board=self,
            rows=self.sorted_rows(),
            columns={name: METRICS[name] for name in self._columns()},
            style=STYLE,
        )

    def _columns(self) -> list[str]:
        return [name for name in METRICS if any(name in row.metrics for row in self.rows)]


def _number(row: Row, name: str) -> float:
    value = row.metrics.get(name, {}).get("value")
    return -1.0 if value is None else value


def _text(entry: Metric | None) -> str:
    if not entry or entry["value"] is None:
        return ""
    if entry["low"] is None or entry["high"] is None:
        return f"{entry['value']:.4f}"
    return f"{entry['value']:.4f} ({entry['low']:.3f} to {entry['high']:.3f})"
