"""Linear heads on cached features: image weights, logistic and ridge regression, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepfake_detectors.evaluation.metrics import require_scikit_learn
from deepfake_detectors.train.probe_features import Picture
from deepfake_detectors.train.probe_recipe import HeadRecipe, Part

__all__ = ["LinearHead", "TrainingSet", "fit_head", "fit_weighted_platt", "picture_weights"]

TOLERANCE = 1e-9  # tolerance of lbfgs, far below the 1e-6 to which heads must be reproducible
MAX_STEPS = 20_000
SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class LinearHead:
    """A fitted head: `weight @ clip((features - mean) / deviation) + bias`.

    Attributes:
        mean, deviation: float32 `(features,)`, as stored in the model.
        weight: float64 `(features,)`.
        bias: bias of the logit difference fake - real.
        clip: see `ClipProbeConfig`.
    """

    mean: np.ndarray
    deviation: np.ndarray
    weight: np.ndarray
    bias: float
    clip: float | None

    def difference(self, features: np.ndarray) -> np.ndarray:
        """Return the logit difference `(n,)` of features `(n, features)`."""
        return _standardised(features, self.mean, self.deviation, self.clip) @ self.weight + self.bias


@dataclass(frozen=True)
class TrainingSet:
    """Images with their features.

    Attributes:
        pictures: `n` of them.
        features: float32 `(n, features)`.
        copies: features of their altered copies; `None` without copies.
    """

    pictures: Sequence[Picture]
    features: np.ndarray
    copies: np.ndarray | None = None

    @property
    def fake(self) -> np.ndarray:
        """Return bool `(n,)`."""
        return np.array([picture.fake for picture in self.pictures])

    def subset(self, chosen: np.ndarray) -> TrainingSet:
        """Return the images where bool `(n,)` is true."""
        kept = [picture for picture, keep in zip(self.pictures, chosen, strict=True) if keep]
        return TrainingSet(kept, self.features[chosen], None if self.copies is None else self.copies[chosen])


def picture_weights(pictures: Sequence[Picture], parts: Mapping[str, Part]) -> np.ndarray:
    """Return the weight of each image, float64 `(n,)`: masses of the parts, scaled to half of `n` per class.

    Raises:
        ValueError: if a class is missing.
    """
    weights = np.zeros(len(pictures))
    cells: dict[tuple[str, bool], dict[str, list[int]]] = {}
    for place, picture in enumerate(pictures):
        kind = picture.manipulation if parts[picture.part].per_manipulation else ""
        cells.setdefault((picture.part, picture.fake), {}).setdefault(kind, []).append(place)
    for (part, _), kinds in cells.items():
        for places in kinds.values():
            weights[places] = parts[part].mass / len(kinds) / len(places)
    fake = np.array([picture.fake for picture in pictures])
    if fake.all() or not fake.any():
        raise ValueError("All training images belong to one class; a head needs real and fake ones.")
    for chosen in (fake, ~fake):
        weights[chosen] *= len(pictures) / 2 / weights[chosen].sum()
    return weights


def fit_head(data: TrainingSet, recipe: HeadRecipe) -> LinearHead:
    """Fit a head according to its recipe; an image and its copy each have half of the image's weight."""
    features, fake, weights = data.features, data.fake, picture_weights(data.pictures, recipe.parts)
    if data.copies is not None:
        features = np.concatenate([features, data.copies])
        fake, weights = np.tile(fake, 2), np.tile(weights / 2, 2)
    wide = features.astype(np.float64)
    mean = np.average(wide, axis=0, weights=weights)
    deviation = np.sqrt(np.average((wide - mean) ** 2, axis=0, weights=weights)).clip(SMALLEST_DEVIATION)
    mean, deviation = mean.astype(np.float32), deviation.astype(np.float32)
    standard = _standardised(features, mean, deviation, recipe.clip)
    if recipe.method == "logistic":
        weight, bias = _logistic(standard, fake, weights, recipe.strength)
    else:
        weight, bias = _ridge(standard, fake, weights, recipe, _twins(data.pictures))
    return LinearHead(mean, deviation, weight, bias, recipe.clip)


def fit_weighted_platt(fake: np.ndarray, differences: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Fit `P(fake) = sigmoid(scale * difference + bias)` without regularisation.

    Args:
        fake: bool `(n,)`, for images that the head has not seen.
        differences: `(n,)`.
        weights: `(n,)`.

    Returns:
        `{"scale", "bias"}`.
    """
    scale, bias = _logistic(differences[:, None], fake, weights, np.inf)
    return {"scale": float(scale[0]), "bias": bias}


def _standardised(features: np.ndarray, mean: np.ndarray, deviation: np.ndarray, clip: float | None) -> np.ndarray:
    standard = (features.astype(np.float32) - mean) / deviation
    return (standard if clip is None else standard.clip(-clip, clip)).astype(np.float64)


def _logistic(values: np.ndarray, fake: np.ndarray, weights: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    require_scikit_learn()
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=MAX_STEPS)
    model.fit(values, fake, sample_weight=weights)
    return model.coef_[0].copy(), float(model.intercept_[0])


def _ridge(
    values: np.ndarray, fake: np.ndarray, weights: np.ndarray, recipe: HeadRecipe, twins: list[tuple[int, int]]
) -> tuple[np.ndarray, float]:
    """Fit targets +1 and -1 with an unpenalised bias. `twins` are rows of fakes and their real images."""
    centre = np.average(values, axis=0, weights=weights)
    target = np.where(fake, 1.0, -1.0)
    middle = np.average(target, weights=weights)
    shifted = values - centre
    normal = (shifted * weights[:, None]).T @ shifted + recipe.strength * len(values) * np.eye(values.shape[1])
    wanted = shifted.T @ (weights * (target - middle))
    if recipe.pair_term and twins:
        gaps = values[[fake_row for fake_row, _ in twins]] - values[[real_row for _, real_row in twins]]
        normal += recipe.pair_term * gaps.T @ gaps
        wanted += recipe.pair_term * 2.0 * gaps.sum(axis=0)
    weight = np.linalg.solve(normal, wanted)
    return weight, float(middle - centre @ weight)


def _twins(pictures: Sequence[Picture]) -> list[tuple[int, int]]:
    places = {(picture.part, picture.id): place for place, picture in enumerate(pictures)}
    pairs = ((place, places.get((picture.part, str(picture.twin)))) for place, picture in enumerate(pictures))
    return [(place, twin) for place, twin in pairs if twin is not None]
