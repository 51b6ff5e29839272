"""A second pass over the images that are most likely fake: with an expensive detector, or for explanations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepfake_detectors.scale.judging import Question

__all__ = ["FIRST", "SECOND", "Cascade", "as_cascade", "cascade_counts", "find_cut", "first_scores", "settled_row"]

FIRST, SECOND = "first_probability", "second_probability"
DEFAULT_SHARE = 0.05


@dataclass(frozen=True)
class Cascade:
    """What happens to the images with the highest P(fake) of the first pass.

    Attributes:
        model: the second detector; the first one if `None`.
        share: of all images that could be read, in (0, 1]; images with the same P(fake) as the last of them are
            included.
        threshold: instead of a share, the lowest P(fake) of the first pass with which an image is judged again, in [0,
            1].
        explain: whether the second pass also explains.
        head: of the second detector.
        question, max_new_tokens: of the explanation.
    """

    model: str | None = None
    share: float | None = None
    threshold: float | None = None
    explain: bool = False
    head: str | None = None
    question: str | None = None
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.share is not None and self.threshold is not None:
            raise ValueError("Set either the share or the threshold of a cascade, not both.")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"The share of a cascade is {self.share!r}, expected a number above 0 and at most 1.")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"The threshold of a cascade is {self.threshold!r}, expected a number in [0, 1].")
        if self.model is None and not self.explain:
            raise ValueError("A cascade needs a second `model`, or explain=True.")

    def asked(self, first: Question) -> Question:
        """Return what the second pass asks, `first` being what the first one did."""
        return replace(
            first,
            model=first.model if self.model is None else self.model,
            family=first.family if self.model is None else None,
            head=self.head if self.model is not None else first.head,
            threshold=first.threshold if not isinstance(first.threshold, str) or self.model is None else None,
            explain=self.explain,
            question=self.question,
            max_new_tokens=self.max_new_tokens,
        )


def as_cascade(cascade: Any, explain_top: float | None, question: str | None, max_new: int | None) -> Cascade | None:
    """Return the second pass that `score` was asked for, `None` for a run in one pass.

    Raises:
        ValueError: for anything other than a cascade, its fields or a name, and for two second passes.
    """
    if cascade is not None and explain_top is not None:
        raise ValueError(
            "`explain_top` and `cascade` both request a second pass; use Cascade(..., explain=True) to get both."
        )
    if explain_top is not None:
        return Cascade(share=explain_top, explain=True, question=question, max_new_tokens=max_new)
    if cascade is None or isinstance(cascade, Cascade):
        found = cascade
    elif isinstance(cascade, (str, Path)):
        found = Cascade(model=str(cascade))
    elif isinstance(cascade, Mapping):
        unknown = sorted(set(cascade) - set(Cascade.__dataclass_fields__))
        if unknown:
            raise ValueError(
                f"cascade has the unknown fields {', '.join(unknown)}; known are "
                f"{', '.join(Cascade.__dataclass_fields__)}."
            )
        found = Cascade(**cascade)
    else:
        raise ValueError(f"cascade is {cascade!r}, expected the name of a detector, a Cascade or its fields.")
    if found is not None and found.share is None and found.threshold is None:
        found = replace(found, share=DEFAULT_SHARE)
    return found


def first_scores(file: Path) -> list[float | None]:
    """Return P(fake) of the first pass, from a unit's file of either pass; `None` for an image without one."""
    import pyarrow.parquet as pq

    names = pq.read_schema(file).names
    column = FIRST if FIRST in names else "fake_probability"
    return pq.read_table(file, columns=[column])[column].to_pylist()


def find_cut(files: Sequence[Path], cascade: Cascade) -> float:
    """Return the lowest P(fake) of the first pass with which images are judged again.

    For a share it is that of the last image of the top `ceil(share * n)` among the n that have a score; infinite if
    there are none.
    """
    if cascade.threshold is not None:
        return cascade.threshold
    import numpy as np

    # One number an image: eight bytes, and no more, for each of a billion.
    scores = np.concatenate([_finite(first_scores(file)) for file in files] or [np.empty(0)])
    if not len(scores):
        return math.inf
    place = len(scores) - math.ceil(float(cascade.share or 0) * len(scores))
    return float(np.partition(scores, place)[place])


def _finite(scores: Sequence[float | None]) -> Any:
    import numpy as np

    return np.array([score for score in scores if score is not None], dtype=np.float64)


def settled_row(first: Mapping[str, Any], second: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the final row of an image.

    Args:
        first: of the first pass.
        second: of the second; `None` for an image that was not chosen.
    """
    row = {**first, FIRST: first["fake_probability"]}
    if second is None:
        return row
    if second.get("error") is not None:  # it was there before; its verdict would be that of the wrong detector
        unanswered = ("fake_probability", "decision", "label", "explanation", "explanation_verdict", "mask")
        return {**row, **dict.fromkeys(unanswered), "error": second["error"]}
    return {**row, **second, SECOND: second["fake_probability"]}


def cascade_counts(files: Iterator[Path] | Sequence[Path], cut: float) -> dict[str, Any]:
    """Return what became of the images: `cut`, `chosen` for the second pass, `judged_twice`, `explained`, `failed`."""
    import pyarrow.parquet as pq

    counts = dict.fromkeys(("chosen", "judged_twice", "explained", "failed"), 0)
    for file in files:
        names = pq.read_schema(file).names
        wanted = [name for name in (FIRST, SECOND, "explanation", "error") if name in names]
        for row in pq.read_table(file, columns=wanted).to_pylist():
            chosen = row[FIRST] is not None and row[FIRST] >= cut
            counts["chosen"] += chosen
            counts["judged_twice"] += row[SECOND] is not None
            counts["explained"] += row[SECOND] is not None and row.get("explanation") is not None
            counts["failed"] += chosen and row[SECOND] is None
    return {"cut": cut if math.isfinite(cut) else None, **counts}
