"""LogME as public code computes it: the iteration of the ICML 2021 paper, and the later fixed-point iteration."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROUNDS = 11
GUARD = 1e-5  # added to denominators


def logme_icml(features: Floats, labels: Ints) -> float:
    """Singular vectors of the D x D product once; products with them and with the features in each round."""
    images, dimensions = features.shape
    left, eigenvalues, right = np.linalg.svd(features.T @ features)
    scores = []
    for label in range(labels.max() + 1):
        target = (labels == label).astype(np.float64)
        projected = right @ (features.T @ target)
        alpha = beta = ratio = 1.0
        for _ in range(ROUNDS):
            gamma = (eigenvalues / (eigenvalues + ratio)).sum()
            mean = left @ (projected * beta / (alpha + beta * eigenvalues))
            weight = mean @ mean + GUARD
            alpha = gamma / weight
            misfit = np.square(target - features @ mean).sum() + GUARD
            beta = (images - gamma) / misfit
            previous, ratio = ratio, alpha / beta
            if abs(ratio - previous) / previous < 0.01:
                break
        log_determinant = np.log(alpha + beta * eigenvalues).sum()
        scores.append(_evidence(images, dimensions, alpha, beta, log_determinant, misfit, weight))
    return float(np.mean(scores))


def logme_fixed_point(
    features: Floats, labels: Ints, *, padded: bool = False, rounds: int = ROUNDS, tolerance: float = 1e-3
) -> float:
    """A thin singular value decomposition serves all classes.

    As published the log determinant runs over the min(N, D) singular values, although the evidence has D directions,
    which is wrong for N < D; `padded` appends the zero ones. The published rounds may end before the fixed point.
    """
    images, dimensions = features.shape
    left, singular = np.linalg.svd(features, full_matrices=False)[:2]
    squares = singular**2
    missing = dimensions - len(squares) if padded else 0
    scores = []
    for label in range(labels.max() + 1):
        target = (labels == label).astype(np.float64)
        energy = (left.T @ target) ** 2
        outside = (target**2).sum() - energy.sum()
        alpha = beta = 1.0
        for _ in range(rounds):
            ratio = alpha / beta
            gamma = (squares / (squares + ratio)).sum()
            weight = (squares * energy / (ratio + squares) ** 2).sum()
            misfit = (energy / (1 + squares / ratio) ** 2).sum() + outside
            alpha, beta = gamma / (weight + GUARD), (images - gamma) / (misfit + GUARD)
            if abs(alpha / beta - ratio) / ratio <= tolerance:
                break
        log_determinant = np.log(alpha + beta * squares).sum() + missing * np.log(alpha)
        scores.append(_evidence(images, dimensions, alpha, beta, log_determinant, misfit, weight))
    return float(np.mean(scores))


def _evidence(
    images: int, dimensions: int, alpha: float, beta: float, log_determinant: float, misfit: float, weight: float
) -> float:
    total = dimensions * np.log(alpha) + images * np.log(beta) - log_determinant
    return float(total - beta * misfit - alpha * weight - images * np.log(2 * np.pi)) / 2 / images
