"""TransRate as public code computes it: log determinants of D x D matrices, of all images and of each class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def transrate(features: Floats, labels: npt.NDArray[np.int64], *, eps: float = 1e-4) -> float:
    """Coding rate of all images less the mean coding rate of classes, all centred by the mean of all images."""
    centred = features - features.mean(axis=0)
    classes = int(labels.max()) + 1
    rates = [_coding_rate(centred[labels == label], eps) for label in range(classes)]
    return _coding_rate(centred, eps) - sum(rates) / classes


def _coding_rate(rows: Floats, eps: float) -> float:
    images, dimensions = rows.shape
    return 0.5 * float(np.linalg.slogdet(np.eye(dimensions) + rows.T @ rows / (images * eps)).logabsdet)
