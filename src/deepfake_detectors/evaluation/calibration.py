"""Calibration: from a ranking to probabilities (Platt, "Probabilistic outputs for support vector machines", 1999)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from deepfake_detectors.evaluation.metrics import check_scores, one_class_reason, require_scikit_learn

__all__ = ["calibrated_probability", "fit_platt"]


def fit_platt(labels: ArrayLike, differences: ArrayLike) -> dict[str, float]:
    """Fit `P(fake) = sigmoid(scale * difference + bias)`, both classes weighted alike.

    The weights make 0.5 the right threshold where real and fake are equally likely, whatever their share in the set.

    Args:
        labels: `(n,)`, 0 real and 1 fake; pictures that were not trained on.
        differences: `(n,)`, logit fake - logit real.

    Returns:
        `{"scale", "bias"}`, as `config.calibration` holds them.

    Raises:
        ValueError: if a class is missing, or if the scores rank backwards.
        ImportError: if scikit-learn is not installed.
    """
    truth, values = check_scores(labels, differences)
    reason = one_class_reason(truth)
    if reason:
        raise ValueError(f"Calibration needs both classes, but {reason}.")
    require_scikit_learn()
    from sklearn.linear_model import LogisticRegression

    # In units of their own spread, so that the solver's tolerance fits whatever the size of the logits.
    middle, spread = float(values.mean()), float(values.std())
    if spread == 0.0:
        raise ValueError(
            f"All {values.size} pictures have the same score, {middle:.6g}; there is nothing to calibrate."
        )
    model = LogisticRegression(class_weight="balanced", C=np.inf, max_iter=1000)
    model.fit((values[:, None] - middle) / spread, truth)
    scale = float(model.coef_[0, 0]) / spread
    bias = float(model.intercept_[0]) - scale * middle
    if scale <= 0:
        raise ValueError(
            f"The fitted scale is {scale:.3g}: on these pictures higher scores mean less fake. Such a model cannot be "
            "calibrated; train it further, or check the order of its classes."
        )
    return {"scale": scale, "bias": bias}


def calibrated_probability(differences: ArrayLike, calibration: dict[str, float]) -> np.ndarray:
    """P(fake) `(n,)` in [0, 1] for logit differences `(n,)`."""
    return 1.0 / (1.0 + np.exp(-(calibration["scale"] * np.asarray(differences) + calibration["bias"])))
