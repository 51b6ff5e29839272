"""The first lines of a report: what was tested, how good it is, and reasons for doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["verdict_in_words"]

FOLLOWS = 0.5  # rank correlation with file size above which scores are said to depend on it
WORST_SHOWN = 3
Metric = Mapping[str, "float | None"]


def verdict_in_words(results: Mapping[str, Any]) -> list[str]:
    """Return the results in sentences, with serious doubts before good numbers.

    Args:
        results: the content of results.json. Without scores, only the tested data is described.
    """
    part = results.get("judgement", results)
    metrics = part.get("metrics", {})
    control = results.get("control", {}).get("metrics", {})
    lines = [_tested(results, part)]
    lines += _ranking(metrics)
    lines += _files(control)
    lines += _errors(results)
    if swept := results.get("robustness"):
        lines += _after(swept)
    return lines


def _tested(results: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    inputs = results["inputs"]
    who = inputs.get("model") or f"predictions from {', '.join(map(str, inputs.get('predictions', [])))}"
    where = f" on {inputs['set']}" if "set" in inputs else ""
    counts = {name: part.get(name) for name in ("num_real", "num_fake")}
    if None in counts.values():
        return f"Tested: {who}{where}."
    return f"Tested: {who}{where}; {counts['num_real']} real and {counts['num_fake']} fake images."


def _ranking(metrics: Mapping[str, Metric]) -> list[str]:
    area = metrics.get("auc")
    if area is None:
        return []
    if area["value"] is None:
        return ["How well it separates real from fake is unknown: the dataset has only one class."]
    shown = _value(area)
    if area["low"] is None or area["high"] is None:
        return [f"AUC {shown}, without an interval, so the influence of chance is unknown."]
    if area["high"] < 0.5:
        return [f"Worse than chance: AUC {shown}. It confuses real images and fakes, or labels or scores are swapped."]
    if area["low"] <= 0.5:
        return [f"No better than chance: AUC {shown} includes 0.5."]
    return [f"Better than chance: AUC {shown}, where 0.5 is chance and 1 is perfect."]


def _files(control: Mapping[str, Metric]) -> list[str]:
    """Return what file sizes reveal about the dataset and the detector."""
    lines = []
    follows = control.get("bytes_per_pixel_correlation")
    if follows is not None and follows["value"] is not None:
        ends = [end for end in (follows["low"], follows["high"]) if end is not None] or [follows["value"]]
        if min(map(abs, ends)) >= FOLLOWS and min(ends) * max(ends) > 0:
            lines.append(
                f"Warning: it depends on file size. Within the real and within the fake images, its scores follow "
                f"bytes per pixel (rank correlation {_value(follows)}), which is unrelated to forgery. Its numbers "
                "will not hold for images that were saved differently."
            )
    alone = control.get("bytes_per_pixel_auc")
    if alone is None or alone["value"] is None:
        return lines
    certain = alone["low"] is not None and alone["high"] is not None and not alone["low"] <= 0.5 <= alone["high"]
    if certain or (alone["low"] is None and abs(alone["value"] - 0.5) > 0.1):
        below = ", and less than 0.5 is as informative as more" if alone["value"] < 0.5 else ""
        text = (
            "The files reveal the class: bytes per pixel alone, without looking at an image, reach AUC "
            f"{_value(alone)}. Chance is 0.5{below}."
        )
        above = control.get("auc_above_bytes_per_pixel")
        if above is not None and above["value"] is not None:
            least = above["value"] if above["low"] is None else above["low"]
            text += (
                f" The detector is better than that by {_value(above)}."
                if least > 0
                else f" The detector is not better than that (difference {_value(above)})."
            )
        lines.append(text)
    elif alone["low"] is not None:
        lines.append(
            f"The control finds nothing: bytes per pixel alone reach AUC {_value(alone)}, which includes 0.5."
        )
    return lines


def _errors(results: Mapping[str, Any]) -> list[str]:
    """Return the two error rates at the threshold, from the accuracy per kind of image."""
    if "threshold" not in results or "per_manipulation" not in results:
        return []
    rows = results["per_manipulation"]
    real = rows.get("real")
    fakes = [row for name, row in rows.items() if name != "real"]
    said = []
    if real:
        said.append(f"{100 * (1 - real['accuracy']):.1f} % of the real images are called fake (false alarms)")
    if fakes:
        total = sum(row["count"] for row in fakes)
        missed = sum(row["count"] * (1 - row["accuracy"]) for row in fakes)
        said.append(f"{100 * missed / total:.1f} % of the fakes are missed")
    return [f"At the threshold {results['threshold']:.4g}: {', and '.join(said)}."] if said else []


def _after(swept: Mapping[str, Any]) -> list[str]:
    known = {name: entry["metrics"] for name, entry in swept["variants"].items() if "metrics" in entry}
    flips = sorted(known, key=lambda name: -(known[name]["flip_rate"]["value"] or 0.0))
    if not flips:
        return []
    worst = ", ".join(f"{name} {100 * (known[name]['flip_rate']['value'] or 0):.1f} %" for name in flips[:WORST_SHOWN])
    text = f"Of {len(known)} ways of re-encoding, these flip most verdicts: {worst}."
    alarms = {name: entry["false_alarm_rate"]["value"] for name, entry in known.items()}
    named = {name: value for name, value in alarms.items() if value is not None}
    if named:
        most = max(named, key=lambda name: named[name])
        text += f" False alarms rise to at most {100 * named[most]:.1f} % of the real images ({most})."
    return [text]


def _value(entry: Metric) -> str:
    value = f"{entry['value']:.3f}"
    if entry["low"] is None or entry["high"] is None:
        return value
    return f"{value} (95 % interval {entry['low']:.3f} to {entry['high']:.3f})"
