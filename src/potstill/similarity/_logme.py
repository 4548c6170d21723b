"""LogME: how well does a Bayesian linear model of the features explain the labels?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, check_matrix, check_targets, finite_score
from potstill.similarity._components import label_spectrum

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

LOWEST, HIGHEST = 1e-8, 1e12  # range of the noise ratio, in mean eigenvalues of the Gram matrix
GRID_POINTS = 81  # four a decade, so that the global maximum lies between neighbours of the best
HALVINGS, NEWTON_STEPS = 12, 3  # of two grid steps; the logarithm of the ratio is then known to rounding


def logme(features: Array, labels: Array) -> float:
    """Log of the maximum evidence: the best log-likelihood an image of the labels under Bayesian linear regression.

    For each class its 0/1 label y (or for each column of labels) is modelled as y = F w + noise with w ~ N(0, 1/alpha)
    and noise ~ N(0, 1/beta); the evidence p(y | F, alpha, beta) is maximised over both precisions, and its logarithm
    over N is averaged over classes. For a given ratio alpha / beta the best beta is known in closed form, so the search
    is over the ratio alone: a grid finds the global maximum, bisection and Newton's method make it exact. All N
    eigenvalues enter, also for N < D, where a common implementation drops the zero ones. The ratio stays within 1e-8 to
    1e12 mean eigenvalues: where features fit the labels exactly the evidence would otherwise have no maximum.

    Args:
        features: `(N, D)`, real, not centred.
        labels: `(N,)`, any integers; a class may have one image. Or `(N, C)`, bool or 0/1 integers, for multi-label
            images; or floating numbers `(N,)` or `(N, K)` for regression, in a unit of your choice.

    Returns:
        A real number, higher is better; not bounded, and often negative. Only comparable on the same labels.

    Cost: O(N D min(N, D)) time, O(min(N, D)^2) memory beside the features; no iteration over D.

    Raises:
        SimilarityError: bad inputs, or a column of labels that is the same for all images.

    Reference: You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021,
    equation 2 and algorithm 1 (a fixed-point iteration to the same stationary point).

    >>> round(logme([[0.0, 1.0], [0.2, 0.9], [1.0, 0.0], [0.9, 0.3], [1.0, 0.1]], [0, 0, 1, 1, 1]), 4)
    -0.217
    """
    targets = check_targets(labels, metric="logme", min_images=2)
    matrix = check_matrix(features, len(targets.columns), metric="logme", name="features")
    columns = _varying(targets.columns)
    eigenvalues, energy = label_spectrum(matrix, columns)
    squares = np.einsum("nc,nc->c", columns, columns)
    residual = squares - energy.sum(axis=0)  # part of |y|^2 outside the span of the features
    residual[residual < 1e-12 * squares] = 0.0  # y lies in the span; the rest is rounding
    evidence = _maximum_evidence(eigenvalues / eigenvalues.mean(), energy, residual, len(matrix))
    # A density of values in a unit that is `scale` times smaller.
    return finite_score(float(evidence.mean() + np.log(targets.scale)), metric="logme")


def _varying(columns: Float64s) -> Float64s:
    """The columns of labels, none of which may be constant: its evidence would say nothing about the features."""
    constant = np.flatnonzero(columns.max(axis=0) == columns.min(axis=0))
    if len(constant):
        raise SimilarityError(
            f"logme: {len(constant)} of {columns.shape[1]} label columns (first: {constant[0]}) are the same for "
            "all images; leave them out."
        )
    return columns


def _maximum_evidence(eigenvalues: Float64s, energy: Float64s, residual: Float64s, count: int) -> Float64s:
    """Largest log evidence over N for each column `(C,)`. The search variable is log(alpha / beta)."""
    grid = np.linspace(np.log(LOWEST), np.log(HIGHEST), GRID_POINTS)
    values = _evidence_on_grid(grid, eigenvalues, energy, residual, count)
    best = values.argmax(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, GRID_POINTS - 1)]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rising = _slopes(middle, eigenvalues, energy, residual, count)[0] > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    found = (low + high) / 2
    for _ in range(NEWTON_STEPS):
        slope, curvature = _slopes(found, eigenvalues, energy, residual, count)
        steps = np.divide(slope, -curvature, out=np.zeros_like(slope), where=curvature < 0)
        found = np.clip(found + steps, low, high)
    return np.asarray(np.maximum(_evidence(found, eigenvalues, energy, residual, count), values.max(axis=0)))


def _evidence_on_grid(
    grid: Float64s, eigenvalues: Float64s, energy: Float64s, residual: Float64s, count: int
) -> Float64s:
    """`_evidence` of every column at every point of the grid, `(G, C)`."""
    ratios = np.exp(grid)[:, None]
    misfit = residual + (ratios / (ratios + eigenvalues)) @ energy
    log_determinant = np.log1p(eigenvalues / ratios).sum(axis=1, keepdims=True)
    return np.asarray(-0.5 * (np.log(2 * np.pi * misfit / count) + 1 + log_determinant / count), dtype=np.float64)


def _evidence(log_ratio: Float64s, eigenvalues: Float64s, energy: Float64s, residual: Float64s, count: int) -> Float64s:
    """log p(y | F, ratio, best beta) / N (equation 2): the normal density with covariance (1 + F F' / ratio) / beta."""
    ratio = np.exp(log_ratio)
    misfit = residual + (energy * (ratio / (ratio + eigenvalues[:, None]))).sum(axis=0)  # N / best beta
    log_determinant = np.log1p(eigenvalues[:, None] / ratio).sum(axis=0)
    return np.asarray(-0.5 * (np.log(2 * np.pi * misfit / count) + 1 + log_determinant / count), dtype=np.float64)


def _slopes(
    log_ratio: Float64s, eigenvalues: Float64s, energy: Float64s, residual: Float64s, count: int
) -> tuple[Float64s, Float64s]:
    """First and second derivative of `_evidence` by log_ratio, times 2."""
    ratio = np.exp(log_ratio)
    kept = ratio / (ratio + eigenvalues[:, None])
    change = kept * (1 - kept)  # of kept by log_ratio
    explained = energy * kept
    misfit = residual + explained.sum(axis=0)
    explained *= 1 - kept
    share = explained.sum(axis=0) / misfit
    slope = (1 - kept).sum(axis=0) / count - share
    curvature = share**2 - change.sum(axis=0) / count - (explained * (1 - 2 * kept)).sum(axis=0) / misfit
    return slope, curvature
