"""Results of an evaluation: as data, as a short table, and as a folder with results.json, a report and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepfake_detectors.evaluation.bands import DecisionBand, plot_band
from deepfake_detectors.evaluation.covering import COVERING
from deepfake_detectors.evaluation.localisation import MARKED_ON_REAL
from deepfake_detectors.evaluation.metrics import LOWER_IS_BETTER
from deepfake_detectors.evaluation.plots import plot_bars, plot_scores
from deepfake_detectors.evaluation.predictions import Prediction
from deepfake_detectors.evaluation.protocols import Protocol
from deepfake_detectors.evaluation.regions import NAMED_ON_REAL
from deepfake_detectors.evaluation.robustness import plot_robustness
from deepfake_detectors.evaluation.scoring import RUN_FILE, Scored
from deepfake_detectors.evaluation.wording import verdict_in_words
from deepfake_detectors.markup import as_markdown, html_page
from deepfake_detectors.outputs import folder_lock, write_bytes, write_json, write_text

__all__ = ["CHECKS", "RESULTS_FILE", "WRITTEN_FILES", "Results", "render_report", "results_content", "sections"]

RESULTS_FILE, REPORT_FILE, PAGE_FILE = "results.json", "report.md", "report.html"
# in addition to predictions, which are only appended to
WRITTEN_FILES = (RESULTS_FILE, REPORT_FILE, PAGE_FILE, RUN_FILE)
LIBRARIES = ("deepfake-detectors", "numpy", "scikit-learn")
CHECKS = "explanation_checks"
SECTIONS = ("judgement", "explanation", CHECKS, "regions", COVERING, "localisation", "control")
# Metrics of controls and checks, and their desired values.
NEUTRAL = {"bytes_per_pixel_auc": "near 0.5", "bytes_per_pixel_correlation": "near 0"}
NEUTRAL |= dict.fromkeys(("commonest_answer", "same_answer_as_twin"), "lower")
NEUTRAL |= {f"{name}_of_control": "far below" for name in ("ROUGE_L", "CIDEr", "region_agreement")}
NEUTRAL |= {f"{name}_of_control": "far below" for name in ("region_precision", "region_recall", "score_drop")}
PLOTS = {  # table -> meaning of its rows, file
    "per_manipulation": ("manipulation", "manipulations.png"),
    "per_category": ("category", "categories.png"),
    "per_set": ("set", "sets.png"),
}


@dataclass
class Results:
    """Result of `evaluate`.

    Attributes:
        content: content of results.json; the same call gives the same content.
        predictions: data and prediction of each image, calibrated if a fit was requested; empty for M2F2-Det's
            published answers.
        failures: id -> reason why the image could not be read; these images are excluded from all numbers.
        remarks: other caveats for readers.
        threshold: P(fake) at or above which an image counts as fake.
        scored: the detector's own predictions; `None` if cached ones were scored.
        band: the decision band, if requested.
    """

    content: dict[str, Any]
    predictions: list[Prediction] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    threshold: float = 0.5
    scored: Scored | None = None
    band: DecisionBand | None = None

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Name -> `{"value", "low", "high"}`, as in results.json; `None` if undefined or not requested."""
        return self.content["metrics"]

    @property
    def in_words(self) -> list[str]:
        """Summary in sentences: what was tested, how good it is, and reasons for doubt."""
        return verdict_in_words(self.content)

    def summary(self) -> list[dict[str, Any]]:
        """Return the short table: one row per metric and section, in the order of the report.

        Returns:
            Rows of `section` (`"results"`, `"judgement"`, ...), `metric`, `value` (a number or `None`), `low` and
            `high`; for a published protocol also `corrected`, the corrected number next to the published one (either
            is missing if that side does not have the metric); `reason` if one is undefined.
        """
        rows = []
        for section, part in sections(self.content).items():
            corrected = part.get("corrected", {})
            undefined = {**corrected.get("undefined", {}), **part["undefined"]}
            other = corrected.get("metrics", {})
            for name in dict.fromkeys([*part["metrics"], *other]):
                row: dict[str, Any] = {"section": section, "metric": name, **part["metrics"].get(name, {})}
                if name in other:
                    row["corrected"] = other[name]["value"]
                if name in undefined:
                    row["reason"] = undefined[name]
                rows.append(row)
        return rows

    def save(self, directory: str | Path) -> list[Path]:
        """Write `results.json`, the report, the plots, and the predictions if a detector made them.

        The report is `report.md` with separate plots, and the same in one file, `report.html`.

        The same results give the same bytes.

        Args:
            directory: a folder, made if needed; files of the same names are replaced.

        Returns:
            The files, `results.json` first.

        Raises:
            ValueError: if `directory` is a file.
            ImportError: if matplotlib is not installed.
        """
        folder = Path(directory)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file; it must be a folder.")
        with folder_lock(folder):
            files = [] if self.scored is None else self.scored.save(folder)
            plots = self._plots()
            drawn = [write_bytes(folder / name, content) for name, content in plots.items()]
            text = render_report(self.content, list(plots))
            report = write_text(folder / REPORT_FILE, text)
            page = write_text(folder / PAGE_FILE, html_page("Evaluation", text, plots))
            # Last: where it lies, the evaluation is complete.
            numbers = write_json(folder / RESULTS_FILE, self.content)
        return [numbers, report, page, *drawn, *files]

    def _plots(self) -> dict[str, bytes]:
        """File name -> content."""
        plots: dict[str, bytes] = {}
        if self.predictions and all(row.score is not None for row in self.predictions):
            plots |= plot_scores(self.predictions, self.threshold)
        if self.band is not None:
            plots["band.png"] = plot_band(self.band)
        if swept := self.content.get("robustness"):
            unchanged = {name: entry["value"] for name, entry in self.metrics.items()} | {"flip_rate": 0.0}
            if "real" in self.content["per_manipulation"]:
                unchanged["false_alarm_rate"] = 1 - self.content["per_manipulation"]["real"]["accuracy"]
            plots["robustness.png"] = plot_robustness(swept, unchanged)
        part = self.content.get("judgement", self.content)
        name = self.content["protocol"]["name"]
        sides = {"as published": part, "corrected": part["corrected"]} if "corrected" in part else {name: part}
        for key, (kind, file) in PLOTS.items():
            tables = {legend: source[key] for legend, source in sides.items() if key in source}
            if tables:
                plots[file] = plot_bars(tables, kind)
        return plots


def results_content(protocol: Protocol, inputs: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        protocol: the rules.
        inputs: the evaluated data.
        results: the numbers.
    """
    libraries = list(LIBRARIES)
    if "model" in inputs:
        libraries += ["torch", "transformers"]
    if "explanation" in results:
        libraries.append("pycocoevalcap")
    return {
        "protocol": protocol.describe(),
        "inputs": dict(inputs),
        **results,
        "versions": {name: version(name) for name in libraries},
    }


def render_report(results: Mapping[str, Any], plots: list[str]) -> str:
    """Render `results` as Markdown (the content of results.json), with links to the plots (file names)."""
    protocol = results["protocol"]
    lines = ["# Evaluation", "", *(line for words in verdict_in_words(results) for line in (as_markdown(words), ""))]
    lines += ["## How it was measured", "", f"Protocol `{protocol['name']}`: {protocol['summary']}", ""]
    lines += [f"Rules from: {protocol['source']}. Positive class: {protocol['positive_class']}.", ""]
    lines += [f"- {name}: {as_markdown(_text(value))}" for name, value in results["inputs"].items()] + [""]
    for name, part in sections(results).items():
        lines += _part(name, part)
        if name == CHECKS:
            lines += [
                "The control gives every image the answer that the detector wrote about another one: its scores come "
                "from phrases that always fit. The most common answer: "
                f'"{as_markdown(part["commonest"])}".',
                "",
            ]
        if name == COVERING:
            lines += [
                "P(fake) before minus after the named regions were covered with the mean colour of the image. The "
                "control covers the same shape elsewhere on the face: only a drop beyond it supports the named "
                "regions.",
                "",
            ]
        if name == "control":
            lines += [
                "Ranking the images by bytes per pixel alone. Far from 0.5, the files reveal the class. The "
                "correlation is that of scores and bytes per pixel within each class: far from 0, the detector "
                "depends on the files.",
                "",
            ]
    if swept := results.get("robustness"):
        lines += _robustness(swept)
    if calibration := results.get("calibration"):
        lines += _calibration(calibration)
    if band := results.get("decision_band"):
        lines += _decision_band(band)
    if defects := results.get("defects"):
        lines += ["## Known defects of the published scorer, reproduced here", ""]
        lines += [f"- **{name}**: {text}" for name, text in defects.items()] + [""]
    if plots:
        lines += ["## Plots", ""] + [f"![{name}]({name})\n" for name in plots]
    return "\n".join(lines).rstrip() + "\n"


def sections(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of results with their own metrics, by title."""
    named = {name: results[name] for name in SECTIONS if name in results}
    return named if "level" not in results else {"results": results, **named}


def _calibration(found: Mapping[str, Any]) -> list[str]:
    source = found["fitted_on"]
    lines = ["## Calibration", ""]
    lines += [
        f"{found['method'].capitalize()}: scale {found['scale']:.4f}, bias {found['bias']:.4f}, fitted on "
        f"{source['num_real']} real and {source['num_fake']} fake images of {as_markdown(source['set'])}, with equal "
        f"weight for both classes; measured on {found['measured_on']}.",
        "",
        "| | before | after |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {name} | {found[name]['before']:.4f} | {found[name]['after']:.4f} |" for name in ("brier", "ece")]
    lines += [
        "",
        "| operating point | threshold | reals called fake | fakes called fake |",
        "| --- | --- | --- | --- |",
    ]
    for name, point in found["operating_points"].items():
        lines.append(f"| {name} | {' | '.join(_with_interval(point[key]) for key in ('threshold', 'fpr', 'tpr'))} |")
    lines += ["", *(f"- {name} was not fitted: {reason}." for name, reason in found["unavailable"].items())]
    return [*lines, *(f"- Note: {as_markdown(remark)}." for remark in found["remarks"]), ""]


def _robustness(found: Mapping[str, Any]) -> list[str]:
    """Return the table of a sweep: numbers with intervals, and the corruptions."""
    columns = {
        "AUC": "auc",
        "AUC, difference": "auc_difference",
        "accuracy": "accuracy",
        "reals called fake": "false_alarm_rate",
        "verdicts flipped": "flip_rate",
    }
    lines = ["## Robustness", ""]
    lines += [
        f"Real and fake images altered in the same way and scored again at the same threshold, "
        f"{found['threshold']:.4g} (set `{found['recipe']}`). Differences are relative to the unaltered images.",
        "",
        f"| images after | {' | '.join(columns)} | what was done |",
        f"| --- |{' --- |' * (len(columns) + 1)}",
    ]
    for name, entry in found["variants"].items():
        cells = [_with_interval(entry["metrics"][key]) if "metrics" in entry else "" for key in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {entry['steps']} |")
    return [*lines, ""]


def _decision_band(band: Mapping[str, Any]) -> list[str]:
    return [
        "## Decision band",
        "",
        f'P(fake) of {band["high"]:.4f} or more means "likely fake", of {band["low"]:.4f} or less "likely real", '
        "and anything between is inconclusive.",
        "",
        f"- Fitted on {as_markdown(band['fitted_on'])}.",
        f'- Real images called "likely fake" there: {100 * band["false_alarm_rate"]:.1f} %.',
        f'- Fakes called "likely real" there: {100 * band["miss_rate"]:.1f} %.',
        f"- Images that get an answer (mean of both classes): {100 * band['coverage']:.1f} %.",
        "",
    ]


def _with_interval(entry: Mapping[str, float | None]) -> str:
    if entry["value"] is None:
        return "undefined"
    interval = "" if entry["low"] is None else f" ({entry['low']:.4f} to {entry['high']:.4f})"
    return f"{entry['value']:.4f}{interval}"


def _part(title: str, part: Mapping[str, Any]) -> list[str]:
    corrected = part.get("corrected")
    lines = [f"## {title.replace('_', ' ').capitalize()}", ""]
    counts = part.get("counts") or {key: part[key] for key in ("num_real", "num_fake") if key in part}
    if counts:
        lines += [", ".join(f"{name.replace('num_', '')}: {count}" for name, count in counts.items()) + ".", ""]
    lines += _metric_table("As published" if corrected else "Metric", part)
    if corrected:
        lines += ["### Corrected", "", *_metric_table("Corrected", corrected)]
    for name, found in (("as published" if corrected else "", part), ("corrected", corrected or {})):
        for key in ("per_manipulation", "per_category", "per_set"):
            if key in found:
                lines += [f"### {key.replace('_', ' ').capitalize()}{f', {name}' if name else ''}", ""]
                lines += _plain_table(found[key])
        for remark in found.get("remarks", ()):
            lines += [f"Note: {as_markdown(remark)}", ""]
        for aggregation, videos in found.get("videos", {}).items():
            lines += [f"### Videos, {aggregation}", ""]
            lines += (
                [f"Not available: {videos['unavailable']}.", ""]
                if "unavailable" in videos
                else _metric_table(f"{videos['videos']} videos", videos)
            )
    return lines


def _metric_table(title: str, part: Mapping[str, Any]) -> list[str]:
    lines = [f"| {title} | value | 95 % interval | better |", "| --- | ---: | --- | --- |"]
    for name, entry in part["metrics"].items():
        value = "undefined" if entry["value"] is None else f"{entry['value']:.4f}"
        interval = "" if entry["low"] is None else f"{entry['low']:.4f} to {entry['high']:.4f}"
        lines.append(f"| {name} | {value} | {interval} | {_direction(name)} |")
    lines.append("")
    lines += [f"- {name} is undefined: {reason}." for name, reason in part["undefined"].items()]
    return [*lines, ""] if part["undefined"] else lines


def _direction(name: str) -> str:
    if name in NEUTRAL:
        return NEUTRAL[name]
    return "lower" if name in LOWER_IS_BETTER or name in (MARKED_ON_REAL, NAMED_ON_REAL) else "higher"


def _plain_table(table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in table.values() for key in row))
    lines = [f"| | {' | '.join(name.replace('_', ' ') for name in columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for name, row in table.items():
        lines.append(f"| {as_markdown(name)} | {' | '.join(_text(row.get(column)) for column in columns)} |")
    return [*lines, ""]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):  # an interval
        return f"{value['low']:.4f} to {value['high']:.4f}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
