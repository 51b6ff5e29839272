"""Decision bands: limits of P(fake) for a decision, with a bound on how often it is wrong.

The upper end is an order statistic of the scores of real images, the lower end one of fakes: split-conformal
thresholds in their training-conditional form (Vovk, "Conditional validity of inductive conformal predictors", ACML
2012, proposition 2a). Of n exchangeable reals with the k-th smallest score S, the chance that a new real scores above
S is Beta(n - k + 1, k) distributed, for any detector; k is the smallest one for which that chance is at most the
target rate with the given confidence. If images share a source or a video, one of each group is drawn, so that the
bound holds for an image of a new group (Dunn, Wasserman and Ramdas, "Distribution-free prediction sets for two-layer
hierarchical models", JASA 2023, their single subsampling).

The bound only holds for images like those the band was fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.plots import COLOURS, figure_png, new_figure
from deepfake_detectors.evaluation.predictions import LABELS, Prediction

__all__ = ["DecisionBand", "fit_band", "needed_units", "plot_band", "safe_rank"]

CONFIDENCE = 0.95
MEASURED_SHARE = 0.5
CURVE_RATES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)


@dataclass(frozen=True)
class DecisionBand:
    """A fitted band. All numbers are in [0, 1].

    Attributes:
        low, high: P(fake) up to `low` is "likely real", from `high` up "likely fake".
        fitted_on: text with the images it was fitted on and its guarantee.
        false_alarm_rate, miss_rate: share of reals called "likely fake", and of fakes called "likely real", on the
            images that were set aside.
        coverage: share of those images that got an answer, averaged over both classes.
        counts: images fitted on and measured on, and groups fitted on, by class.
        curve: measurements for a range of target rates: `promised`, `false_alarm_rate`, `miss_rate`,
            `coverage`.
    """

    low: float
    high: float
    fitted_on: str
    false_alarm_rate: float
    miss_rate: float
    coverage: float
    counts: dict[str, int] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)

    def to_config(self) -> dict[str, Any]:
        """Return the `decision_band` for a checkpoint's config."""
        return {name: getattr(self, name) for name in CONFIG_FIELDS}


CONFIG_FIELDS = ("low", "high", "fitted_on", "false_alarm_rate", "miss_rate", "coverage")


def safe_rank(units: int, rate: float, confidence: float = CONFIDENCE) -> int | None:
    """Return the rank k of the threshold, counted from the smallest score; `None` if there are too few scores.

    Args:
        units: number n of exchangeable scores.
        rate: largest share of new scores above the k-th smallest, in (0, 1).
        confidence: probability of keeping that share, in (0, 1).
    """
    # P(Beta(n - k + 1, k) <= rate) = P(Binomial(n, rate) >= n - k + 1); sum up the tail from the far end.
    below = 1.0 - confidence
    cumulative, count = 0.0, 0
    while count <= units:
        log_term = (
            math.lgamma(units + 1)
            - math.lgamma(count + 1)
            - math.lgamma(units - count + 1)
            + count * math.log(rate)
            + (units - count) * math.log1p(-rate)
        )
        cumulative += math.exp(log_term)
        if cumulative > below:
            break
        count += 1
    return None if count == 0 else units - count + 1


def needed_units(rate: float, confidence: float = CONFIDENCE) -> int:
    """Return the smallest number of exchangeable scores for which `safe_rank` finds a threshold."""
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-rate))


def fit_band(
    predictions: Sequence[Prediction],
    false_alarm_rate: float = 0.05,
    *,
    miss_rate: float | None = None,
    confidence: float = CONFIDENCE,
    measured_share: float = MEASURED_SHARE,
    fitted_on: str = "the given images",
    seed: int = 0,
) -> DecisionBand:
    """Fit a band to scores of images that the detector was not trained on.

    First, whole groups are set aside to measure the band's error rates and coverage. Both ends are then fitted on the
    others, with one image per group and class.

    Args:
        predictions: predictions with P(fake) as `score`; images are grouped by `group_id`, or else `video_id`, or else
            each image is its own group.
        false_alarm_rate: largest share of real images that may be called "likely fake", in (0, 0.5).
        miss_rate: largest share of fakes that may be called "likely real"; `None` means `false_alarm_rate`.
        confidence: probability of keeping each of the two, in (0, 1).
        measured_share: share of the groups to set aside, in (0, 1).
        fitted_on: description of the images for readers.
        seed: seed of the split and of drawing from groups.

    Raises:
        ValueError: for numbers out of range, scores that are not probabilities, or a class with too few groups; the
            message has the number needed.
    """
    miss = false_alarm_rate if miss_rate is None else miss_rate
    for name, rate in (("false_alarm_rate", false_alarm_rate), ("miss_rate", miss)):
        if not 0.0 < rate < 0.5:
            raise ValueError(f"{name} is {rate!r}, expected a share between 0 and 0.5 (exclusive), such as 0.05.")
    for name, share in (("confidence", confidence), ("measured_share", measured_share)):
        if not 0.0 < share < 1.0:
            raise ValueError(f"{name} is {share!r}, expected a share between 0 and 1 (exclusive).")
    scores = _Scores(predictions, measured_share, seed)
    ends = _ends(scores, false_alarm_rate, miss, confidence)
    if isinstance(ends, str):
        raise ValueError(ends)
    curve = []
    for rate in CURVE_RATES:
        found = _ends(scores, rate, rate, confidence)
        if not isinstance(found, str):
            curve.append({"promised": rate, **scores.measure(*found)})
    counts = scores.counts()
    promise = (
        f"{fitted_on}: {counts['fitted_real']} real and {counts['fitted_fake']} fake ones, one per group. With "
        f"{100 * confidence:g} % confidence at most {100 * false_alarm_rate:g} % of such real images are called "
        f"'likely fake' and at most {100 * miss:g} % of such fakes 'likely real'. Measured on "
        f"{counts['measured_real']} real "
        f"and {counts['measured_fake']} fake images of other groups"
    )
    return DecisionBand(*ends, promise, **scores.measure(*ends), counts=counts, curve=curve)


class _Scores:
    """Return the scores of both classes, split by groups into those to fit and those to measure on."""

    def __init__(self, predictions: Sequence[Prediction], measured_share: float, seed: int) -> None:
        values = [row.score for row in predictions]
        if not values or any(value is None or not 0.0 <= value <= 1.0 for value in values):
            raise ValueError("A band needs a P(fake) in [0, 1] for each of one or more images.")
        groups = [row.group_id or row.video_id or row.id for row in predictions]
        generator = np.random.default_rng(seed)
        names = sorted(set(groups))
        order = generator.permutation(len(names))
        aside = {names[place] for place in order[: round(measured_share * len(names))]}
        self.fitted: dict[str, np.ndarray] = {}
        self.measured: dict[str, np.ndarray] = {}
        for label in LABELS:
            cells: dict[str, list[float]] = {}
            for row, group in zip(predictions, groups, strict=True):
                if row.label == label:
                    cells.setdefault(group, []).append(float(row.score or 0.0))
            drawn = [cells[name][int(generator.integers(len(cells[name])))] for name in sorted(cells)]
            kept = [name not in aside for name in sorted(cells)]
            self.fitted[label] = np.sort(np.array(drawn)[np.array(kept, dtype=bool)]) if drawn else np.array([])
            self.measured[label] = np.array([value for name in cells if name in aside for value in cells[name]])

    def counts(self) -> dict[str, int]:
        return {
            f"{kind}_{label}": len(values[label])
            for kind, values in (("fitted", self.fitted), ("measured", self.measured))
            for label in LABELS
        }

    def measure(self, low: float, high: float) -> dict[str, float]:
        real, fake = self.measured["real"], self.measured["fake"]
        covered = [float(((values >= high) | (values <= low)).mean()) for values in (real, fake)]
        return {
            "false_alarm_rate": float((real >= high).mean()),
            "miss_rate": float((fake <= low).mean()),
            "coverage": sum(covered) / 2,
        }


def _ends(scores: _Scores, false_alarm_rate: float, miss_rate: float, confidence: float) -> tuple[float, float] | str:
    """Return the lower and upper end of the band, or raise an error with the reason."""
    found: dict[str, float] = {}
    for label, rate in (("real", false_alarm_rate), ("fake", miss_rate)):
        values, set_aside = scores.fitted[label], len(scores.measured[label])
        rank = safe_rank(len(values), rate, confidence)
        if rank is None or not set_aside:
            return (
                f"A rate of {100 * rate:g} % with {100 * confidence:g} % confidence needs "
                f"{needed_units(rate, confidence)} {label} images of different groups to fit on, and others to "
                f"measure on, but there are {len(values)} and {set_aside}. Use more images, or a higher rate."
            )
        # Strictly above the k-th smallest real, strictly below the k-th largest fake.
        found[label] = (
            np.nextafter(values[rank - 1], np.inf) if label == "real" else np.nextafter(values[-rank], -np.inf)
        )
    low, high = float(found["fake"]), float(found["real"])
    if high > 1.0 or low < 0.0:
        label = "real" if high > 1.0 else "fake"
        return f"Too many {label} images have the most extreme score; no threshold keeps the requested rate."
    if low >= high:  # the classes hardly overlap: any threshold in between keeps both rates
        high = (low + high) / 2
        low = float(np.nextafter(high, -np.inf))
    return low, high


def plot_band(band: DecisionBand) -> bytes:
    """Draw what answering costs: error rates against coverage, on the images that were set aside.

    Returns:
        The content of a PNG file.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    figure, axes = new_figure(6.4, 4.4)
    points = sorted(band.curve, key=lambda point: point["coverage"])
    coverage = [point["coverage"] for point in points]
    for name, label, colour in (
        ("false_alarm_rate", "reals called 'likely fake'", COLOURS["real"]),
        ("miss_rate", "fakes called 'likely real'", COLOURS["fake"]),
    ):
        axes.plot(coverage, [point[name] for point in points], "o-", markersize=3, color=colour, label=label)
        axes.plot(band.coverage, getattr(band, name), "s", markersize=8, color=colour)
    axes.axvline(band.coverage, color="grey", linestyle=":", linewidth=1, label="the band")
    axes.set(
        xlabel="share of images that get an answer (mean of both classes)",
        ylabel="share of the class",
        title="Risk against coverage",
        xlim=(-0.02, 1.02),
        ylim=(-0.01, None),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False)
    return figure_png(figure)
