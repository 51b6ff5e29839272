"""From probabilities to what may be said: of a face, of a track, of a file."""

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
# The higher, the more a file is judged by it. `None` is a verdict without a fitted decision band.
RANKS = {NOT_APPLICABLE: 0, LIKELY_REAL: 1, None: 2, INCONCLUSIVE: 3, "likely fake": 4}


def decide_track(
    probability: float, band: Mapping[str, Any] | None, frames: int | None = None
) -> tuple[str | None, str | None]:
    """Return the decision on one face or image, and the reason where there is more to say than the number.

    Args:
        probability: P(fake), of one image or pooled.
        band: decision band of the head that judged; `None` where none was fitted.
        frames: in how many frames of a video the face was seen; `None` for what is not a track.

    Returns:
        A decision (`None` without a band) and a reason or `None`.
    """
    if frames is not None and frames < MIN_TRACK_FRAMES:
        seen = "1 frame" if frames == 1 else f"{frames} frames"
        return INCONCLUSIVE, f"the face was seen in {seen} only, and a decision needs {MIN_TRACK_FRAMES}"
    decision = decide(probability, band)
    if decision == INCONCLUSIVE and band is not None:
        return decision, f"P(fake) lies between {band['low']:.3g} and {band['high']:.3g}"
    return decision, None


def worst(candidates: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return what decides: the candidate with the gravest `decision`, of several the one with the highest P(fake)."""
    return max(candidates, key=lambda item: (RANKS[item["decision"]], item["fake_probability"] or 0.0), default=None)


def worst_track(tracks: Sequence[Mapping[str, Any]], band: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the track that decides a video, `None` without tracks.

    A track that is too short to be judged counts beside longer ones only where its P(fake) would not read "likely
    real": a passer-by in two frames must not take away the answer about a person in all the others. Without a decision
    band it does not count beside longer ones.

    Args:
        tracks: with `decision`, `fake_probability` and `frames`.
        band: decision band of the head that judged them.
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
    """Return the decision as a person reads it."""
    return UNCALIBRATED if decision is None else decision
