"""The shrunk H-score as public code computes it: D x D covariances and a pseudo-inverse."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.covariance import LedoitWolf


def hscore(features: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """With N - 1 in the covariance of class means and N in that of the features, hence N / (N - 1) times ours."""
    centred = features - features.mean(axis=0)
    estimate = LedoitWolf().fit(centred)
    means = np.zeros_like(centred)
    for label in range(labels.max() + 1):
        means[labels == label] = centred[labels == label].mean(axis=0)
    between = (1 - estimate.shrinkage_) * np.cov(means, rowvar=False)
    return float(np.trace(np.linalg.pinv(estimate.covariance_, rcond=1e-15) @ between))
