"""The regularised Fisher discriminant that sfda and ncti share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from potstill.similarity._checks import Float64s, Int64s, class_sums

STRENGTH = 5.0  # of the published code: shrinkage = exp(-5 sigma)
FLOOR = 1e-4  # least within-class variance, as a share of all variance: identical images of a class would leave none


class Fisher(NamedTuple):
    """A discriminant fitted to points `(N, R)` of C classes."""

    shrinkage: float
    means: Float64s
    """`(C, R)` of the classes."""
    scatter: Float64s
    """`(R, R)` within classes, shrunk."""
    posteriors: Float64s
    """`(N, C)` probability of each class for each image."""


def fit_fisher(points: Float64s, index: Int64s, counts: Int64s, shrinkage: float | None = None) -> Fisher:
    """Gaussian classes with one shrunk covariance `(1 - a) S_W + a trace(S_W) / R I`, R the number of coordinates.

    Without a given shrinkage, `a = exp(-5 sigma(S_W) / trace(S_T))`, where sigma is the largest eigenvalue.
    """
    images, dimensions = points.shape
    points = points - points.mean(axis=0)
    means = class_sums(points, index, counts) / counts[:, None]
    residuals = points - means[index]
    scatter = residuals.T @ residuals / images
    within, total = float(np.trace(scatter)), float(np.vdot(points, points)) / images
    if shrinkage is None:
        largest = float(np.linalg.eigvalsh(scatter)[-1])
        shrinkage = float(np.exp(-STRENGTH * largest / total))
    scatter *= 1 - shrinkage
    # The smallest positive number stands for points that all coincide: no class is then more likely than its share.
    scatter[np.diag_indices(dimensions)] += (
        max(shrinkage * within, FLOOR * total, np.finfo(np.float64).tiny) / dimensions
    )
    weights = np.linalg.solve(scatter, means.T)
    logits = points @ weights - np.einsum("cr,rc->c", means, weights) / 2 + np.log(counts / images)
    return Fisher(shrinkage, means, scatter, softmax(logits, axis=1))
