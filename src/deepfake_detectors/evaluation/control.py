"""A control for the detector's numbers: does the file size alone separate the classes?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.bootstrap import Interval, draw_weights, percentile_interval
from deepfake_detectors.evaluation.curve import one_class_reason
from deepfake_detectors.evaluation.metrics import MetricSet, auc, score_intervals
from deepfake_detectors.evaluation.paired import compare_scores
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups, labels_of, scores_of
from deepfake_detectors.modeling.image_loading import read_image_size

__all__ = ["bytes_per_pixel", "bytes_per_pixel_control"]


def bytes_per_pixel(image: Any) -> float | None:
    """Return the size of the encoded image over its number of pixels, read from its header; `None` without a header.

    Args:
        image: a path, or an undecoded cell of `datasets`, `{"bytes", "path"}`; `None` if it is not a file.
    """
    if image is None:
        return None
    cell = image if isinstance(image, dict) else {"path": image}
    try:
        content = cell.get("bytes")
        size = Path(str(cell["path"])).stat().st_size if content is None else len(content)
        width, height = read_image_size(cell)
        return size / (width * height)
    except (OSError, ValueError):
        return None


def bytes_per_pixel_control(
    rows: Sequence[Prediction], images: Sequence[Any], resamples: int, seed: int
) -> dict[str, Any]:
    """Compute the AUC of ranking the images by bytes per pixel: far from 0.5, the files reveal the class.

    Args:
        rows: rows of the dataset.
        images: source of each image.
        resamples, seed: settings of the 95 % intervals.

    Returns:
        `metrics` and `undefined`. `bytes_per_pixel_auc`; if the rows have scores, also
        `bytes_per_pixel_correlation`, the rank correlation of score and bytes per pixel within the classes, in
        [-1, 1]: far from 0, the detector depends on the file size and not only on the class; and
        `auc_above_bytes_per_pixel`, the detector's AUC minus the control's, in the better of its two directions.
    """
    pairs = [(row, value) for row, image in zip(rows, images, strict=True) if (value := bytes_per_pixel(image))]
    result = MetricSet()
    truth, values = labels_of([row for row, _ in pairs]), np.array([value for _, value in pairs])
    reason = one_class_reason(truth) if pairs else "none of the image sizes could be read"
    known = [row for row, _ in pairs]
    interval = None
    groups = bootstrap_groups(known)[1] if pairs else None
    if not reason and resamples:
        interval = score_intervals(truth, values, 0.5, groups, resamples, seed).get("auc")
    alone = None if reason else auc(truth, values)
    result.add("bytes_per_pixel_auc", alone, reason, interval)
    if alone is not None and all(row.score is not None for row in known):
        scores = scores_of(known)
        compared = compare_scores(
            truth, values if alone >= 0.5 else -values, scores, groups=groups, resamples=resamples, seed=seed
        ).metrics["auc_difference"]
        above, low, high = (compared[part] for part in ("value", "low", "high"))
        spread = None if low is None or high is None else Interval(low, high, 0.95, resamples, "picture")
        result.add("auc_above_bytes_per_pixel", above, None, spread)
        result.add("bytes_per_pixel_correlation", *_correlation(truth, scores, values, groups, resamples, seed))
    return result.to_dict()


def _correlation(
    truth: np.ndarray,
    scores: np.ndarray,
    values: np.ndarray,
    groups: Sequence[str] | None,
    resamples: int,
    seed: int,
) -> tuple[float | None, str | None, Interval | None]:
    """Return the rank correlation within the classes, or why it is undefined; resamples keep all ranks."""
    from scipy.stats import rankdata

    def centred(series: np.ndarray) -> np.ndarray:
        ranks = np.zeros(len(series))
        for label in (0, 1):
            inside = rankdata(series[truth == label])
            ranks[truth == label] = (inside - inside.mean()) / len(inside)
        return ranks

    first, second = centred(scores), centred(values)

    def correlate(weights: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return weights @ (first * second) / np.sqrt((weights @ first**2) * (weights @ second**2))

    whole = float(correlate(np.ones((1, truth.size)))[0])
    if not np.isfinite(whole):
        return None, "within the classes, all scores or all sizes are equal", None
    if not resamples:
        return whole, None, None
    drawn = np.concatenate([correlate(weights) for weights in draw_weights(truth, groups, resamples, seed)])
    return whole, None, percentile_interval(drawn)
