"""The results of an evaluation as Markdown for a reader; `results.json` has the same numbers, unrounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepfake_detectors.evaluation.localisation import MARKED_ON_REAL
from deepfake_detectors.evaluation.score_metrics import LOWER_IS_BETTER

__all__ = ["render_report", "sections"]

SECTIONS = ("judgement", "explanation", "localisation", "control")


def render_report(results: Mapping[str, Any], plots: list[str]) -> str:
    """Markdown of `results` (the content of `results.json`), with links to the plots (file names)."""
    protocol = results["protocol"]
    lines = ["# Evaluation", "", f"Protocol `{protocol['name']}`: {protocol['summary']}", ""]
    lines += [f"Rules from: {protocol['source']}. Positive class: {protocol['positive_class']}.", ""]
    lines += [f"- {name}: {_text(value)}" for name, value in results["inputs"].items()] + [""]
    for name, part in sections(results).items():
        lines += _part(name, part)
        if name == "control":
            lines += [
                "Ranking the pictures by bytes per pixel alone. Far from 0.5, the files give the class away.",
                "",
            ]
    if calibration := results.get("calibration"):
        lines += _calibration(calibration)
    if defects := results.get("defects"):
        lines += ["## Known defects of the published scorer, reproduced here", ""]
        lines += [f"- **{name}**: {text}" for name, text in defects.items()] + [""]
    if plots:
        lines += ["## Plots", ""] + [f"![{name}]({name})\n" for name in plots]
    return "\n".join(lines).rstrip() + "\n"


def sections(results: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of results that have metrics of their own, by title; published answers have no others."""
    named = {name: results[name] for name in SECTIONS if name in results}
    return named if "level" not in results else {"results": results, **named}


def _calibration(found: Mapping[str, Any]) -> list[str]:
    source = found["fitted_on"]
    lines = ["## Calibration", ""]
    lines += [
        f"{found['method'].capitalize()}: scale {found['scale']:.4f}, bias {found['bias']:.4f}, fitted on "
        f"{source['num_real']} real and {source['num_fake']} fake pictures of {source['set']}, both classes weighing "
        f"alike; measured on {found['measured_on']}.",
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
    return [*lines, *(f"- Note: {remark}." for remark in found["remarks"]), ""]


def _with_interval(entry: Mapping[str, float | None]) -> str:
    if entry["value"] is None:
        return "undefined"
    interval = "" if entry["low"] is None else f" ({entry['low']:.4f} to {entry['high']:.4f})"
    return f"{entry['value']:.4f}{interval}"


def _part(title: str, part: Mapping[str, Any]) -> list[str]:
    corrected = part.get("corrected")
    lines = [f"## {title.capitalize()}", ""]
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
            lines += [f"Note: {remark}", ""]
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
    if name == "bytes_per_pixel_auc":
        return "near 0.5"
    return "lower" if name in LOWER_IS_BETTER or name == MARKED_ON_REAL else "higher"


def _plain_table(table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in table.values() for key in row))
    lines = [f"| | {' | '.join(name.replace('_', ' ') for name in columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for name, row in table.items():
        lines.append(f"| {name} | {' | '.join(_text(row.get(column)) for column in columns)} |")
    return [*lines, ""]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):  # an interval
        return f"{value['low']:.4f} to {value['high']:.4f}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
