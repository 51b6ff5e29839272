"""The numbers of an evaluation on the terminal: values to stdout, remarks to stderr."""

from __future__ import annotations

from typing import Any

import typer

from deepfake_detectors_cli.console import say

__all__ = ["summarise"]


def summarise(results: dict[str, Any]) -> None:
    """Print metrics, published and corrected side by side, and say what is undefined, and why."""
    from deepfake_detectors.evaluation.report import sections

    parts = sections(results)
    for title, part in parts.items():
        if len(parts) > 1:
            typer.echo(f"{title}:")
        _table(part)
    if calibration := results.get("calibration"):
        _calibration(calibration)
    for name, text in results.get("defects", {}).items():
        say(f"Defect of the published scorer, reproduced: {name}: {text}.")


def _table(part: dict[str, Any]) -> None:
    corrected = part.get("corrected", {}).get("metrics", {})
    if corrected:
        typer.echo(f"{'':<26}{'published':>12}{'corrected':>12}")
    for name in dict.fromkeys([*part["metrics"], *corrected]):
        columns = [part["metrics"].get(name), corrected.get(name)] if corrected else [part["metrics"].get(name)]
        typer.echo(f"{name:<26}" + "".join(f"{_number(entry):>12}" for entry in columns))
    for name, reason in {**part.get("corrected", {}).get("undefined", {}), **part["undefined"]}.items():
        say(f"{name} is undefined: {reason}.")


def _calibration(found: dict[str, Any]) -> None:
    typer.echo(f"calibration: {found['method']}, scale {found['scale']:.6g}, bias {found['bias']:.6g}")
    for name, point in found["operating_points"].items():
        rates = ", ".join(f"{rate} {_number(point[rate])}" for rate in ("fpr", "tpr"))
        typer.echo(f"{name:<26}{_number(point['threshold']):>12}  ({rates} on {found['measured_on']})")
    for name, reason in found["unavailable"].items():
        say(f"{name} was not fitted: {reason}.")
    for remark in found["remarks"]:
        say(f"Note: {remark}.")


def _number(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    return "undefined" if entry["value"] is None else f"{entry['value']:.6f}"
