"""Plots of an evaluation that a person can read, as the content of PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.curve import one_class_reason
from deepfake_detectors.evaluation.metrics import auc, require_scikit_learn
from deepfake_detectors.evaluation.predictions import Prediction, labels_of, scores_of

__all__ = ["COLOURS", "figure_png", "new_figure", "plot_bars", "plot_heat_map", "plot_scores"]

# Blue and orange are distinguishable for colour-blind readers, and in grey.
COLOURS = {"real": "#3b76af", "fake": "#e08214"}
DARK = 0.45  # brightness below which the number in a cell is white
DPI = 120
BINS = 15


def plot_scores(rows: Sequence[Prediction], threshold: float) -> dict[str, bytes]:
    """Draw what the scores allow: `scores.png`, and `roc.png` and `reliability.png` where they are defined.

    Args:
        rows: with scores.
        threshold: P(fake) from which an image counts as fake.

    Returns:
        File name -> content.

    Raises:
        ImportError: if matplotlib is not installed, with the command to install it.
    """
    labels, scores = labels_of(rows), scores_of(rows)
    proper = 0.0 <= scores.min() and scores.max() <= 1.0
    plots = {"scores.png": _histogram(labels, scores, threshold, proper)}
    if not one_class_reason(labels):
        plots["roc.png"] = _roc(labels, scores, threshold)
        if proper:
            plots["reliability.png"] = _reliability(labels, scores)
    return plots


def plot_bars(tables: Mapping[str, Mapping[str, Mapping[str, Any]]], by: str = "kind of image") -> bytes:
    """Draw accuracy per row of one or several tables side by side.

    Args:
        tables: legend -> row name -> `{"accuracy", "count"}`; the first table's rows give the order.
        by: what the rows are, for the title.
    """
    names = list(next(iter(tables.values())))
    figure, axes = new_figure(6.4, 1.4 + 0.55 * len(names))
    height = 0.8 / len(tables)
    shades = ("#3b76af", "#e08214", "#7a7a7a")
    for number, (legend, table) in enumerate(tables.items()):
        places = np.arange(len(names)) + (number - (len(tables) - 1) / 2) * height
        values = [table[name]["accuracy"] if name in table else 0.0 for name in names]
        axes.barh(places, values, height * 0.92, label=legend, color=shades[number % len(shades)])
        for place, name, value in zip(places, names, values, strict=True):
            text = f"{100 * value:.1f} %" if name in table else "none"
            axes.text(value + 0.01, place, text, va="center", fontsize=8)
    counts = [next(iter(tables.values()))[name]["count"] for name in names]
    axes.set_yticks(range(len(names)), [f"{name} ({count})" for name, count in zip(names, counts, strict=True)])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(xlim=(0, 1.13), xlabel="accuracy", title=f"Accuracy by {by} (number of images)")
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(axis="x", alpha=0.3)
    if len(tables) > 1:
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.75 / (1.4 + 0.55 * len(names))), ncols=3, frameon=False
        )
    return figure_png(figure)


def plot_heat_map(
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    higher_is_better: Sequence[bool],
    title: str,
) -> bytes:
    """Draw a table of shares as colours with the numbers inside: blue is good, orange is bad.

    Args:
        values: in [0, 1], one list per row; `None` if a number is undefined.
        rows, columns: their names.
        higher_is_better: per column.
        title: above it.
    """
    from matplotlib.colors import LinearSegmentedColormap

    found = np.array([[np.nan if value is None else value for value in row] for row in values], dtype=np.float64)
    good = np.where(np.asarray(higher_is_better)[None, :], found, 1 - found)
    ends = [COLOURS["fake"], "#f7f7f7", COLOURS["real"]]
    shades = LinearSegmentedColormap.from_list("bad to good", ends).with_extremes(bad="#dddddd")
    figure, axes = new_figure(2.2 + 1.15 * len(columns), 1.2 + 0.3 * len(rows))
    axes.imshow(np.ma.masked_invalid(good), cmap=shades, vmin=0, vmax=1, aspect="auto")
    for (place, column), value in np.ndenumerate(found):
        text = "undefined" if np.isnan(value) else f"{value:.3f}"
        red, green, blue = shades(np.nan if np.isnan(value) else float(good[place, column]))[:3]
        ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < DARK else "black"
        axes.text(column, place, text, ha="center", va="center", fontsize=8, color=ink)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.xaxis.tick_top()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("blue: better, orange: worse", fontsize=8)
    axes.xaxis.set_label_position("bottom")
    axes.tick_params(length=0)
    return figure_png(figure)


def _histogram(labels: np.ndarray, scores: np.ndarray, threshold: float, proper: bool) -> bytes:
    figure, axes = new_figure(6.4, 4.0)
    edges = np.linspace(0, 1, 31) if proper else np.linspace(scores.min(), scores.max() + 1e-9, 31)
    for code, name in enumerate(COLOURS):
        chosen = scores[labels == code]
        if chosen.size:
            # Shares instead of counts, because a rare class would be invisible next to a common one.
            weights = np.full(chosen.size, 1 / chosen.size)
            axes.hist(chosen, edges, weights=weights, alpha=0.6, color=COLOURS[name], label=f"{name} ({chosen.size})")
    axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=f"threshold {threshold:.4g}")
    axes.set(
        xlabel="P(fake)" if proper else "score, higher means more fake",
        ylabel="share of the class",
        title="Scores by class",
    )
    axes.legend(framealpha=0.9)
    return figure_png(figure)


def _roc(labels: np.ndarray, scores: np.ndarray, threshold: float) -> bytes:
    false_positive, true_positive, _ = require_scikit_learn().roc_curve(labels, scores, drop_intermediate=False)
    figure, axes = new_figure(5.0, 5.0)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1, label="chance")
    axes.plot(false_positive, true_positive, color=COLOURS["real"], label=f"AUC {auc(labels, scores):.3f}")
    point = [(scores[labels == code] >= threshold).mean() for code in (0, 1)]
    axes.plot(*point, "o", color=COLOURS["fake"], label=f"threshold {threshold:.4g}")
    axes.set(
        xlabel="share of real images called fake",
        ylabel="share of fake images called fake",
        title="ROC curve (positive: fake)",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    return figure_png(figure)


def _reliability(labels: np.ndarray, scores: np.ndarray) -> bytes:
    place = np.minimum((scores * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    filled = counts > 0
    said = np.bincount(place, weights=scores, minlength=BINS)[filled] / counts[filled]
    true = np.bincount(place, weights=labels, minlength=BINS)[filled] / counts[filled]
    figure, axes = new_figure(5.0, 5.0)
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1, label="perfect")
    axes.plot(said, true, color=COLOURS["real"], linewidth=1, alpha=0.6)
    axes.scatter(said, true, 20 + 200 * counts[filled] / counts.max(), color=COLOURS["real"], label="area: pictures")
    axes.set(
        xlabel="mean P(fake) of the bin",
        ylabel="share of fakes in the bin",
        title=f"Reliability ({BINS} bins)",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False)
    return figure_png(figure)


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib, which is not installed: pip install 'deepfake-detectors[eval]'"
        ) from error
    # Without pyplot: no global state, and never a window.
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def figure_png(figure: Any) -> bytes:
    """Return a figure as the content of a PNG file."""
    stream = BytesIO()
    figure.savefig(stream, format="png", bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()
