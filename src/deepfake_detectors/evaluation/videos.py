"""Aggregation of frames to videos: M2F2-Det's published one with its defects, and corrected ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepfake_detectors.evaluation.curve import check_scores, one_class_reason
from deepfake_detectors.evaluation.metrics import MetricSet, auc, score_metrics

__all__ = [
    "AGGREGATIONS",
    "VIDEO_DEFECTS",
    "aggregate_videos",
    "best_threshold_accuracy",
    "check_videos",
    "official_video_metrics",
    "official_videos",
    "video_metrics",
]

AGGREGATIONS = ("mean", "max", "top_k", "trimmed")
TRIM = 10  # frames dropped at each end, as published
TOP_K = 5
VIDEO_DEFECTS = {
    "last_video_dropped": "the last video of the file is never scored",
    "labels_shifted": "every video gets the label of the next one",
    "trimmed": f"the {TRIM} lowest and {TRIM} highest frames are dropped; {2 * TRIM} frames or fewer have no score",
    "oracle_threshold": "accuracy is the best of 11,000 thresholds, chosen on the test set itself",
}


def check_videos(videos: Sequence[str | None]) -> None:
    """Raise a `ValueError` unless every frame has a video and at least one video has several frames."""
    unnamed = sum(video is None for video in videos)
    if unnamed:
        raise ValueError(
            f"Video metrics need a video for every frame, but {unnamed} of {len(videos)} images have no video_id. "
            "Score frames with a video_id, or choose a protocol for images, such as corrected."
        )
    if len(set(videos)) == len(videos):
        raise ValueError(
            f"Video metrics need several frames of a video, but the {len(videos)} images belong to as many videos. "
            "Choose a protocol for images, such as corrected."
        )


def aggregate_videos(
    videos: Sequence[str], labels: ArrayLike, scores: ArrayLike, aggregation: str = "mean"
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Compute one score for each video, independent of the order of frames.

    Args:
        videos: `(n,)`, the video of every frame.
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, higher means more fake.
        aggregation: `"mean"`; `"max"`; `"top_k"`, the mean of the 5 highest (or of all, if there are fewer);
            `"trimmed"`, the mean without the 10 lowest and the 10 highest.

    Returns:
        Names (sorted), labels and scores, `(videos,)` each.

    Raises:
        ValueError: for an unknown aggregation, a video with both labels, or one that is too short for trimming.
    """
    truth, values = check_scores(labels, scores)
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation is {aggregation!r}, allowed are {', '.join(map(repr, AGGREGATIONS))}.")
    names = np.asarray(videos, dtype=object)
    if names.shape != truth.shape:
        raise ValueError(f"videos has shape {names.shape}, expected one video per frame, {truth.shape}.")
    kept = sorted(set(names.tolist()))
    video_labels, video_scores = [], []
    for name in kept:
        frames = np.flatnonzero(names == name)
        found = set(truth[frames].tolist())
        if len(found) > 1:
            raise ValueError(f"The video {name} has frames of both labels; it must be real or fake.")
        video_labels.append(found.pop())
        video_scores.append(_pool(name, np.sort(values[frames]), aggregation))
    return kept, np.array(video_labels), np.array(video_scores)


def _pool(name: str, ordered: np.ndarray, aggregation: str) -> float:
    if aggregation == "trimmed":
        if ordered.size <= 2 * TRIM:
            raise ValueError(
                f"The video {name} has {ordered.size} frames, but trimming drops {2 * TRIM}, which leaves no frames."
            )
        return float(ordered[TRIM:-TRIM].mean())
    if aggregation == "max":
        return float(ordered[-1])
    return float(ordered[-TOP_K:].mean() if aggregation == "top_k" else ordered.mean())


def video_metrics(
    videos: Sequence[str],
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float = 0.5,
    groups: Sequence[str] | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Compute `score_metrics` of the videos for every aggregation; `unavailable` has the reason if one fails.

    Args:
        videos: `(n,)`, the video of every frame.
        labels: `(n,)`, 0 real and 1 fake.
        scores: `(n,)`, P(fake).
        threshold: score from which a video counts as fake.
        groups: `(n,)`, frames that share source material: whole groups of videos are resampled, else videos.
        resamples, seed: as in `score_metrics`.

    Raises:
        ValueError: as `check_videos` and `aggregate_videos`.
    """
    check_videos(videos)
    group_of = None if groups is None else dict(zip(videos, groups, strict=True))
    short = {name: count for name, count in Counter(videos).items() if count <= 2 * TRIM}
    found: dict[str, dict[str, Any]] = {}
    for aggregation in AGGREGATIONS:
        if aggregation == "trimmed" and short:
            found[aggregation] = {
                "unavailable": f"{len(short)} of {len(set(videos))} videos have {2 * TRIM} frames or fewer, all of "
                "which trimming would drop"
            }
            continue
        names, truth, values = aggregate_videos(videos, labels, scores, aggregation)
        shared = None if group_of is None else [group_of[name] for name in names]
        pooled = score_metrics(truth, values, threshold, shared, resamples, seed)
        found[aggregation] = {"videos": len(truth), **pooled.to_dict()}
    return found


def official_videos(
    videos: Sequence[str], real_labels: ArrayLike, real_scores: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the published aggregation with its defects (see `VIDEO_DEFECTS`); positive is real.

    Args:
        videos: `(n,)`, the video of every frame, in the order of the file, which matters.
        real_labels: `(n,)`, 1 real and 0 fake.
        real_scores: `(n,)`, P(real).

    Returns:
        Labels (of the wrong video) and trimmed means, `(videos - 1,)`; NaN for a video of 20 frames or fewer.
    """
    truth, values = check_scores(real_labels, real_scores)
    runs = [[index for index, _ in run] for _, run in groupby(enumerate(videos), key=lambda item: item[1])]
    labels = [truth[following[0]] for following in runs[1:]]
    scores = []
    for run in runs[:-1]:
        middle = np.sort(values[run])[TRIM:-TRIM]
        scores.append(float(middle.mean()) if middle.size else float("nan"))
    return np.array(labels, dtype=np.int64), np.array(scores, dtype=np.float64)


def best_threshold_accuracy(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the best accuracy in [0, 1] over the thresholds 0, 0.0001 ... 1.0999, which is optimistic."""
    truth, values = check_scores(labels, scores)
    thresholds = np.arange(0.0, 1.1, 1e-4)
    ordered = {code: np.sort(values[truth == code]) for code in (0, 1)}
    below = {code: np.searchsorted(ordered[code], thresholds, side="left") for code in (0, 1)}
    right = below[0] + (ordered[1].size - below[1])
    return float(right.max() / truth.size)


def official_video_metrics(videos: Sequence[str | None], real_labels: ArrayLike, real_scores: ArrayLike) -> MetricSet:
    """Compute the published `auc` and `best_threshold_accuracy` over videos; positive is real."""
    check_videos(videos)
    labels, scores = official_videos([str(video) for video in videos], real_labels, real_scores)
    short = int(np.isnan(scores).sum())
    reason = None
    if not scores.size:
        reason = "the file holds a single video, which the published script drops"
    elif short:
        reason = (
            f"{short} of {scores.size} videos have {2 * TRIM} frames or fewer: the published script averages an "
            "empty list and returns NaN"
        )
    result = MetricSet()
    one_class = None if reason else one_class_reason(1 - labels)
    undefined = reason or one_class
    result.add("auc", None if undefined else auc(labels, scores), undefined)
    result.add("best_threshold_accuracy", None if reason else best_threshold_accuracy(labels, scores), reason)
    return result
