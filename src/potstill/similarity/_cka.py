"""CKA: does the similarity structure of the features resemble that of the labels, or of another source's features?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, centre_columns, check_matrix, check_targets, finite_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array


def cka(features: Array, labels: Array | None = None, *, reference_features: Array | None = None) -> float:
    """Unbiased linear centred kernel alignment of the features with labels (or with other features).

    The usual, biased estimate is near 0.8 for pure noise when images are fewer than dimensions; the unbiased one of
    Song et al. averages 0.

    Args:
        features: `(N, D)`, real, N >= 4.
        labels: `(N,)`, any integers; a class may have one image, but not all classes. Or `(N, C)`, bool or 0/1
            integers, for multi-label images; or floating numbers `(N,)` or `(N, K)` for regression.
        reference_features: `(N, E)` of the same images, instead of labels.

    Returns:
        In [-1, 1], higher is better, about 0 for unrelated features, 1 for equal similarity structure.

    Cost: O(N D min(N, D)) time, O(min(N, D)^2) memory beside the features.

    Raises:
        SimilarityError: bad inputs, labels and reference features both or neither given, all classes with one image,
            or features that hold no similarity structure (such as three equal rows and one other).

    Reference: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, section 3, with
    the estimator of Song et al., "Feature Selection via Dependence Maximization", JMLR 2012, equation 4.

    >>> round(cka([[0.0, 1.0], [0.2, 0.9], [1.0, 0.0], [0.9, 0.3], [1.0, 0.1]], [0, 0, 1, 1, 1]), 4)
    0.9775
    """
    if (labels is None) == (reference_features is None):
        raise SimilarityError("cka: give either labels or reference_features.")
    if labels is not None:
        other = check_targets(labels, metric="cka", min_images=4).columns
    elif reference_features is not None:
        other = check_matrix(reference_features, None, metric="cka", name="reference_features")
    matrix = check_matrix(features, None, metric="cka", name="features")
    if len(matrix) != len(other):
        raise SimilarityError(f"cka: {len(matrix)} rows of features are compared with {len(other)} rows.")
    if len(matrix) < 4:
        raise SimilarityError(f"cka: the unbiased estimate needs at least 4 images, got {len(matrix)}.")
    matrix, other = _unit(centre_columns(matrix)), _unit(centre_columns(other))
    # Feature scale is one here, so a self-similarity at rounding level is an exact zero.
    own, others = _unbiased_hsic(matrix, matrix), _unbiased_hsic(other, other)
    for value, what in ((own, "features"), (others, "labels or reference features")):
        if value <= 1e-14:
            raise SimilarityError(f"cka: the {what} hold no similarity structure (unbiased HSIC with itself is 0).")
    return finite_score(_unbiased_hsic(matrix, other) / np.sqrt(own * others), metric="cka")


def _unit(centred: Float64s) -> Float64s:
    """Scaled to mean squared row length one; CKA ignores scale."""
    return np.asarray(centred / np.sqrt(np.mean((centred**2).sum(axis=1))), dtype=np.float64)


def _unbiased_hsic(first: Float64s, second: Float64s) -> float:
    """Song et al. 2012, equation 4, from the features of two linear kernels K and L, without the kernels.

    With k and l the kernels' diagonals, which are to be set to zero:
    trace(KL) = |first' second|^2 - k.l, and the row sums are K1 = first (first' 1) - k.
    """
    count = len(first)
    first_diagonal, second_diagonal = (first**2).sum(axis=1), (second**2).sum(axis=1)
    first_sums = first @ first.sum(axis=0) - first_diagonal
    second_sums = second @ second.sum(axis=0) - second_diagonal
    trace = _squared_product(first, second) - first_diagonal @ second_diagonal
    total = first_sums.sum() * second_sums.sum() / ((count - 1) * (count - 2))
    crossed = 2 * (first_sums @ second_sums) / (count - 2)
    return float((trace + total - crossed) / (count * (count - 3)))


def _squared_product(first: Float64s, second: Float64s) -> float:
    """|first' second|^2 = trace(first first' second second'), by the smaller of the two products."""
    if len(first) < min(first.shape[1], second.shape[1]):
        return float(np.vdot(first @ first.T, second @ second.T))
    return float(np.square(first.T @ second).sum())
