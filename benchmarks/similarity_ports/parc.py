"""PARC as public code computes it: correlation matrices of both sides, and scipy's Spearman over their upper halves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr
from sklearn.preprocessing import StandardScaler

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def parc(features: Floats, labels: Ints) -> float:
    """Without the reduction to principal components, in -1 to 1 instead of points.

    Rows of one-hot labels are correlated in floating point, which splits the one value of different-class pairs into a
    few that differ by rounding; Spearman then ranks them as if they meant something.
    """
    feature_distance = 1 - np.corrcoef(StandardScaler().fit_transform(features))
    label_distance = 1 - np.corrcoef(np.eye(labels.max() + 1)[labels])
    pairs = np.triu_indices(len(labels), 1)
    return float(spearmanr(feature_distance[pairs], label_distance[pairs]).statistic)
