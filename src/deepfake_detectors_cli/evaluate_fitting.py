"""`--threshold` and `--fit` of `evaluate`: numbers, names of operating points, and which pictures are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepfake_detectors.evaluation.calibrated_rows import Calibration
    from deepfake_detectors.evaluation.predictions import Prediction
    from deepfake_detectors.evaluation.protocols.registry import Protocol
    from deepfake_detectors.evaluation.settings import Settings

__all__ = ["at_point", "fit_on", "fit_rows_of", "parse_threshold"]


def parse_threshold(text: str, points: Mapping[str, float], fit: str | None) -> float | None:
    """The number that `--threshold` means; `None` where it names a point that is yet to be fitted.

    Args:
        text: as on the command line.
        points: the model's operating points.
        fit: the method of `--fit`; with one, names are those of the points that it fits.

    Raises:
        ValueError: for a number out of range, or a name that is none.
    """
    try:
        value = float(text)
    except ValueError:
        from deepfake_detectors.evaluation.operating_points import EQUAL_ERRORS, LIMITS

        fitted = (EQUAL_ERRORS, *LIMITS)
        if fit is not None and text in fitted:
            return None
        if fit is None and text in points:
            return float(points[text])
        known = fitted if fit is not None else tuple(points)
        told = f"Known: {', '.join(known)}." if known else "None are known here: give a number, or fit them (--fit)."
        raise ValueError(f"--threshold {text!r} is neither a number nor an operating point. {told}") from None
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"--threshold is {text}, expected a number in [0, 1] or an operating point.")
    return value


def at_point(settings: Settings, name: str, calibration: Calibration) -> Settings:
    """The settings with the threshold of a fitted point.

    Raises:
        ValueError: if it could not be fitted.
    """
    if name in calibration.points.unavailable:
        raise ValueError(f"--threshold {name} could not be fitted: {calibration.points.unavailable[name]}.")
    return replace(settings, threshold=calibration.points.values[name])


def fit_on(
    method: str, rows: list[Prediction], fitted: tuple[list[Prediction], str] | None, settings: Settings
) -> Calibration:
    """Fit on `fitted`, predictions and the name of their set, or where it is `None` on the evaluated `rows`.

    Raises:
        ValueError: as `calibrate`.
    """
    from deepfake_detectors.evaluation.calibrated_rows import calibrate

    if fitted is None:
        return calibrate(method, rows, "the evaluated pictures", None, settings)
    return calibrate(method, *fitted, rows, settings)


def fit_rows_of(file: Path, protocol: Protocol) -> list[Prediction]:
    """The predictions of `--fit-predictions`.

    Raises:
        FileNotFoundError, ValueError: as `read_rows`, and for answers in words.
    """
    from deepfake_detectors.evaluation.run_evaluation import read_rows

    rows = read_rows([file], protocol)
    if rows is None:
        raise ValueError(f"--fit-predictions {file} holds answers in words; a fit needs scores.")
    return rows
