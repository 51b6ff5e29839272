"""Link the faces of a video's frames into tracks, and pool the scores of each track."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from deepfake_detectors.examination.faces import Face, overlap

__all__ = ["DEFAULT_POOLING", "MIN_TRACK_FRAMES", "POOLING", "Moment", "Track", "link_faces", "pool"]

MIN_TRACK_FRAMES = 4  # a track with fewer frames is inconclusive
DEFAULT_POOLING = "trimmed"


class Moment(Protocol):
    """The time of a frame: a `Frame`, or a lighter object with its number and time."""

    @property
    def index(self) -> int: ...

    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True)
class Track:
    """One face tracked through a video.

    Attributes:
        id: 1 for the first track that starts, and so on; if tracks start together, the larger face comes first.
        frames: `(n,)` numbers of the frames it is in, ascending.
        seconds: `(n,)` their times.
        faces: `(n,)` the face in each.
    """

    id: int
    frames: tuple[int, ...]
    seconds: tuple[float, ...]
    faces: tuple[Face, ...]

    @property
    def boxes(self) -> tuple[tuple[float, float, float, float], ...]:
        return tuple(face.box for face in self.faces)

    @property
    def conclusive(self) -> bool:
        """Whether it has enough frames for a decision: `MIN_TRACK_FRAMES`."""
        return len(self.frames) >= MIN_TRACK_FRAMES


def link_faces(
    moments: Sequence[tuple[Moment, Sequence[Face]]], *, min_overlap: float = 0.2, max_missed: int = 2
) -> list[Track]:
    """Link faces that overlap from frame to frame.

    The pairs with the largest overlap are linked first. A cut to another person in the same place is not detected: a
    track is a place in the image, not an identity.

    Args:
        moments: number, time and faces of every examined frame, in order of time.
        min_overlap: intersection over union at or above which two boxes are the same face.
        max_missed: number of frames without the face after which a track still continues.

    Returns:
        The tracks in the order in which they start.
    """
    tracks: list[list[tuple[int, Moment, Face]]] = []
    for position, (moment, faces) in enumerate(moments):
        live = [track for track in tracks if position - track[-1][0] <= max_missed + 1]
        pairs = sorted(
            (
                (overlap(track[-1][2].box, face.box), -number, -which)
                for number, track in enumerate(live)
                for which, face in enumerate(faces)
            ),
            reverse=True,
        )
        continued: set[int] = set()
        linked: set[int] = set()
        for shared, number, which in pairs:
            if shared < min_overlap:
                break
            if -number not in continued and -which not in linked:
                continued.add(-number)
                linked.add(-which)
                live[-number].append((position, moment, faces[-which]))
        tracks += [[(position, moment, face)] for which, face in enumerate(faces) if which not in linked]
    return [
        Track(
            id=number,
            frames=tuple(moment.index for _, moment, _ in track),
            seconds=tuple(moment.seconds for _, moment, _ in track),
            faces=tuple(face for _, _, face in track),
        )
        for number, track in enumerate(tracks, start=1)
    ]


def _mean(scores: np.ndarray) -> float:
    return float(scores.mean())


def _max(scores: np.ndarray) -> float:
    return float(scores.max())


def _top_k(scores: np.ndarray) -> float:
    return float(np.sort(scores)[-max(1, math.ceil(len(scores) / 4)) :].mean())


def _trimmed(scores: np.ndarray) -> float:
    cut = len(scores) // 10
    return float(np.sort(scores)[cut : len(scores) - cut].mean())


# "top-k": mean of the highest quarter, at least one. "trimmed": mean without the lowest and the highest tenth.
POOLING: dict[str, Callable[[np.ndarray], float]] = {"mean": _mean, "max": _max, "top-k": _top_k, "trimmed": _trimmed}


def pool(scores: Sequence[float], rule: str = DEFAULT_POOLING) -> float:
    """Return one score for the frames of a track.

    Args:
        scores: `(n,)` P(fake) of its frames.
        rule: `"mean"`; `"max"`; `"top-k"`, the mean of the highest quarter (at least one frame); `"trimmed"`, the mean
            without the lowest and the highest tenth (of fewer than ten frames, the mean).

    Raises:
        ValueError: for an unknown rule, or without scores.
    """
    if rule not in POOLING:
        raise ValueError(f"There is no pooling rule {rule!r}; available are {', '.join(map(repr, POOLING))}.")
    if len(scores) == 0:
        raise ValueError("A track without frames does not have a score.")
    return POOLING[rule](np.asarray(scores, dtype=np.float64))
