"""Decisions from probabilities, for a face, a track and a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepfake_detectors.examination.tracks import MIN_TRACK_FRAMES
from deepfake_detectors.modeling.configuration_detection import decide

__all__ = [
    "INCONCLUSIVE",
    "NOT_APPLICABLE",
    "UNCALIBRATED",
    "decide_track",
    "decision_in_words",
    "worst",
    "worst_track",
]

INCONCLUSIVE, NOT_APPLICABLE, UNCALIBRATED = "inconclusive", "not applicable", "uncalibrated"
LIKELY_REAL = "likely real"
# A higher number takes precedence for a file. `None` is a verdict without a fitted decision band.
RANKS = {NOT_APPLICABLE: 0, LIKELY_REAL: 1, None: 2, INCONCLUSIVE: 3, "likely fake": 4}


def decide_track(
    probability: float, band: Mapping[str, Any] | None, frames: int | None = None
) -> tuple[str | None, str | None]:
    """Return the decision for one face or image, and a reason if the number is not enough.

    Args:
        probability: P(fake) of one image, or pooled.
        band: decision band of the head that judged; `None` where none was fitted.
        frames: number of frames of a video in which the face was seen; `None` if it is not a track.

    Returns:
        A decision (`None` without a band) and a reason or `None`.
    """
    if frames is not None and frames < MIN_TRACK_FRAMES:
        seen = "1 frame" if frames == 1 else f"{frames} frames"
        return INCONCLUSIVE, f"the face was only seen in {seen}, but a decision needs {MIN_TRACK_FRAMES}"
    decision = decide(probability, band)
    if decision == INCONCLUSIVE and band is not None:
        return decision, f"P(fake) is between {band['low']:.3g} and {band['high']:.3g}"
    return decision, None


def worst(candidates: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the deciding candidate: the one with the most serious `decision`, then with the highest P(fake)."""
    return max(candidates, key=lambda item: (RANKS[item["decision"]], item["fake_probability"] or 0.0), default=None)


def worst_track(tracks: Sequence[Mapping[str, Any]], band: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the deciding track of a video; `None` without tracks.

    A track that is too short for a decision only counts next to longer ones if its P(fake) would not be "likely real":
    a passer-by in two frames must not prevent the answer about a person in all others. Without a decision band, short
    tracks do not count next to longer ones.

    Args:
        tracks: with `decision`, `fake_probability` and `frames`.
        band: decision band of the head.
    """
    long = [track for track in tracks if len(track["frames"]) >= MIN_TRACK_FRAMES]
    if not long:
        return worst(tracks)
    doubtful = [
        track
        for track in tracks
        if track not in long and band is not None and decide(track["fake_probability"], band) != LIKELY_REAL
    ]
    return worst([*long, *doubtful])


def decision_in_words(decision: str | None) -> str:
    """Return the decision in words."""
    return UNCALIBRATED if decision is None else decision
