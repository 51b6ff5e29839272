"""Metrics of one set of scores under many weightings at once, which makes a thousand resamples affordable.

scikit-learn sorts and checks its input again for every metric of every resample. Here the scores are sorted once, and
each resample is a row of weights. The tests compare each number with scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["ScoreCurve", "check_scores", "gather", "one_class_reason"]


def check_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as int64 and scores as float64 arrays of shape `(n,)`.

    Raises:
        ValueError: for empty input, different lengths, labels other than 0 and 1, or scores that are not finite.
    """
    truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(f"labels has shape {truth.shape} and scores {values.shape}, expected the same (n,).")
    if truth.size == 0:
        raise ValueError("There is nothing to evaluate: labels and scores are empty.")
    strange = sorted(set(truth.tolist()) - {0, 1})
    if strange:
        raise ValueError(f"labels contains {strange[:5]}, expected only 0 (real) and 1 (fake).")
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        raise ValueError(
            f"{broken.size} of {values.size} scores are not finite, the first at index {broken[0]}. Scores of NaN "
            "cannot be ranked; find the cause first."
        )
    return truth.astype(np.int64), values


def one_class_reason(truth: np.ndarray) -> str | None:
    """Return why ranking metrics are undefined on these labels, or `None` if they are defined."""
    if truth.all():
        return "the set has no real image, so there is nothing to rank the fakes against"
    if not truth.any():
        return "the set has no fake image, so there is nothing to rank the reals against"
    return None


class ScoreCurve:
    """The ROC curve of `n` scores, for use with weights.

    Args:
        labels: int64 `(n,)`, 0 real and 1 fake.
        scores: float64 `(n,)`, finite, higher means more fake.
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        order = np.argsort(-scores, kind="stable")
        fake = labels[order] == 1
        ordered = scores[order]
        self.sides = order[fake], order[~fake]
        # Equal scores are one point of the curve, because no threshold separates them.
        self.last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        self.thresholds = ordered[self.last]
        self.ends = [np.append(0, np.cumsum(chosen)[self.last]) for chosen in (fake, ~fake)]
        self.squares = (scores - labels) ** 2

    def metrics(
        self, weights: np.ndarray, threshold: float, false_positive_rates: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        """Compute metrics for every row of weights.

        Args:
            weights: float64 `(rows, n)`, non-negative, in the order of the given scores.
            threshold: score at or above which an image counts as fake.
            false_positive_rates: metric name -> largest share of reals that may be called fake.

        Returns:
            Name -> float64 `(rows,)`, NaN where undefined: `accuracy`, `balanced_accuracy`, `f1_fake`, `f1_real`,
            `auc`, `ap`, `eer`, `brier`, and those of `false_positive_rates`.
        """
        hits, alarms = self.counts(weights)
        fakes, reals = hits[:, -1], alarms[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = self._verdicts(hits, alarms, threshold)
            found["auc"] = _area(hits, alarms)
            steps = np.diff(hits, axis=1)
            precision = hits[:, 1:] / (hits[:, 1:] + alarms[:, 1:])
            average = np.where(steps > 0, steps * precision, 0.0).sum(axis=1) / fakes
            found["ap"] = np.where(reals > 0, average, np.nan)
            rates = hits / fakes[:, None], alarms / reals[:, None]
            found["eer"] = _equal_errors(*rates)
            for name, limit in false_positive_rates.items():
                found[name] = _rate_at(*rates, limit)
            found["brier"] = weights @ self.squares / (fakes + reals)
        return found

    def rates(self, weights: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of fakes and of reals called fake, `(rows,)` each, NaN if the class is absent."""
        hits, alarms = self.counts(weights)
        place = int((self.thresholds >= threshold).sum())
        with np.errstate(invalid="ignore"):
            return hits[:, place] / hits[:, -1], alarms[:, place] / alarms[:, -1]

    def limit_thresholds(self, weights: np.ndarray, false_positive_rate: float) -> np.ndarray:
        """Return for each row `(rows,)` the lowest threshold that calls at most this share of the reals fake.

        It is halfway between the last score called fake and the next one, so that rounding does not matter, and above
        the highest score if none may be called fake. NaN without reals.
        """
        alarms = self.counts(weights)[1]
        total = alarms[:, -1:]
        place = (alarms <= false_positive_rate * total).sum(axis=1) - 1
        above = np.append(np.nextafter(self.thresholds[0], np.inf), self.thresholds)
        halfway = np.append((above[:-1] + above[1:]) / 2, above[-1])
        halfway[0] = above[0]
        return np.where(total[:, 0] > 0, halfway[place], np.nan)

    def equal_error_rates(self, weights: np.ndarray) -> np.ndarray:
        """Return the equal error rate of each row `(rows,)`; NaN for one class."""
        hits, alarms = self.counts(weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _equal_errors(hits / hits[:, -1:], alarms / alarms[:, -1:])

    def equal_error_thresholds(self, weights: np.ndarray) -> np.ndarray:
        """Return the interpolated threshold of each row `(rows,)` with equal error rates; NaN for one class."""
        hits, alarms = self.counts(weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = hits / hits[:, -1:], alarms / alarms[:, -1:]
            before, after, share = _crossing(*rates)
            above = np.append(self.thresholds[0], self.thresholds)
            found = above[before] + share * (above[after] - above[before])
        return np.where(np.isnan(rates[0][:, -1] + rates[1][:, -1]), np.nan, found)

    def auc(self, weights: np.ndarray) -> np.ndarray:
        """Return the area under the curve for every row of weights, `(rows,)`, NaN if undefined."""
        return _area(*self.counts(weights))

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of fakes and of reals at or above each score, from none to all, `(rows, points + 1)`."""
        hits, alarms = (
            np.pad(np.cumsum(weights[:, side], axis=1), ((0, 0), (1, 0)))[:, ends]
            for side, ends in zip(self.sides, self.ends, strict=True)
        )
        return hits, alarms

    def _verdicts(self, hits: np.ndarray, alarms: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
        place = int((self.thresholds >= threshold).sum())
        tp, fp = hits[:, place], alarms[:, place]
        fakes, reals = hits[:, -1], alarms[:, -1]
        fn, tn = fakes - tp, reals - fp
        return {
            "accuracy": (tp + tn) / (fakes + reals),
            "balanced_accuracy": (tp / fakes + tn / reals) / 2,
            "f1_fake": np.where(fakes > 0, 2 * tp / (2 * tp + fp + fn), np.nan),
            "f1_real": np.where(reals > 0, 2 * tn / (2 * tn + fp + fn), np.nan),
        }


def gather(parts: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate the values of several blocks of resamples by name."""
    blocks = list(parts)
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _area(hits: np.ndarray, alarms: np.ndarray) -> np.ndarray:
    middles = (hits[:, 1:] + hits[:, :-1]) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.diff(alarms, axis=1) * middles).sum(axis=1) / (hits[:, -1] * alarms[:, -1])


def _crossing(true_rates: np.ndarray, false_rates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where each row's error rates become equal: the points before and after, and the position in between."""
    gap = (1 - true_rates) - false_rates  # falls from 1 to -1 along the curve
    after = np.argmax(gap <= 0, axis=1)
    rows, before = np.arange(len(gap)), np.maximum(after - 1, 0)
    return before, after, gap[rows, before] / (gap[rows, before] - gap[rows, after])


def _equal_errors(true_rates: np.ndarray, false_rates: np.ndarray) -> np.ndarray:
    before, after, share = _crossing(true_rates, false_rates)
    rows = np.arange(len(before))
    start, end = false_rates[rows, before], false_rates[rows, after]
    return start + share * (end - start)


def _rate_at(true_rates: np.ndarray, false_rates: np.ndarray, limit: float) -> np.ndarray:
    place = (false_rates <= limit).sum(axis=1) - 1
    reached = true_rates[np.arange(len(place)), place]
    return np.where(np.isnan(false_rates[:, -1]), np.nan, reached)
