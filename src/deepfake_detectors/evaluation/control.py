"""A control beside the detector's numbers: does the mere size of the files tell the classes apart?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepfake_detectors.evaluation.curve import one_class_reason
from deepfake_detectors.evaluation.metrics import MetricSet, auc, score_intervals
from deepfake_detectors.evaluation.predictions import Prediction, bootstrap_groups, labels_of
from deepfake_detectors.modeling.image_loading import read_image_size

__all__ = ["bytes_per_pixel", "bytes_per_pixel_control"]


def bytes_per_pixel(image: Any) -> float | None:
    """Return the size of the encoded image over its number of pixels, read from its header; `None` if it has none.

    Args:
        image: a path, or an undecoded cell of `datasets`, `{"bytes", "path"}`; `None` for what is not a file.
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
    """Compute the AUC of ranking the pictures by bytes per pixel: far from 0.5, the files give their class away.

    Args:
        rows: of the set.
        images: where each is read from.
        resamples, seed: of the 95 % interval.

    Returns:
        `metrics` with `bytes_per_pixel_auc`, and `undefined`.
    """
    pairs = [(row, value) for row, image in zip(rows, images, strict=True) if (value := bytes_per_pixel(image))]
    result = MetricSet()
    truth, values = labels_of([row for row, _ in pairs]), np.array([value for _, value in pairs])
    reason = one_class_reason(truth) if pairs else "no picture's size could be read"
    interval = None
    if not reason and resamples:
        _, groups = bootstrap_groups([row for row, _ in pairs])
        interval = score_intervals(truth, values, 0.5, groups, resamples, seed).get("auc")
    result.add("bytes_per_pixel_auc", None if reason else auc(truth, values), reason, interval)
    return result.to_dict()
