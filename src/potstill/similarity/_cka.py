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
    own, others, shared = _unbiased_hsics(matrix, other)
    # Feature scale is one here, so a self-similarity at rounding level is an exact zero.
    for value, what in ((own, "features"), (others, "labels or reference features")):
        if value <= 1e-14:
            raise SimilarityError(f"cka: the {what} hold no similarity structure (unbiased HSIC with itself is 0).")
    return finite_score(shared / np.sqrt(own * others), metric="cka")


def _unit(centred: Float64s) -> Float64s:
    """Scaled to mean squared row length one; CKA ignores scale."""
    return np.asarray(centred / np.sqrt(np.mean((centred**2).sum(axis=1))), dtype=np.float64)


def _unbiased_hsics(first: Float64s, second: Float64s) -> tuple[float, float, float]:
    """Unbiased HSIC of the linear kernels K and L of two feature sets: (K with K, L with L, K with L).

    Song et al. 2012, equation 4. With k and l the kernels' diagonals, which are to be set to zero:
    trace(KL) = |first' second|^2 - k.l, and the row sums are K1 = first (first' 1) - k. A kernel is only formed where
    images are fewer than dimensions.
    """
    count = len(first)
    first_kernel, second_kernel = (side @ side.T if count < side.shape[1] else None for side in (first, second))
    diagonals = [np.einsum("nd,nd->n", side, side) for side in (first, second)]
    sums = [side @ side.sum(axis=0) - own for side, own in zip((first, second), diagonals, strict=True)]

    def hsic(squared_product: float, one: int, other: int) -> float:
        trace = squared_product - diagonals[one] @ diagonals[other]
        total = sums[one].sum() * sums[other].sum() / ((count - 1) * (count - 2))
        crossed = 2 * (sums[one] @ sums[other]) / (count - 2)
        return float((trace + total - crossed) / (count * (count - 3)))

    own = hsic(_squared_product(first, first, first_kernel, first_kernel), 0, 0)
    others = hsic(_squared_product(second, second, second_kernel, second_kernel), 1, 1)
    return own, others, hsic(_squared_product(first, second, first_kernel, second_kernel), 0, 1)


def _squared_product(
    first: Float64s, second: Float64s, first_kernel: Float64s | None, second_kernel: Float64s | None
) -> float:
    """|first' second|^2 = trace(K L), by the kernels that there are."""
    if first_kernel is not None and second_kernel is not None:
        return float(np.vdot(first_kernel, second_kernel))
    if first_kernel is not None:
        return float(np.vdot(second, first_kernel @ second))
    if second_kernel is not None:
        return float(np.vdot(first, second_kernel @ first))
    return float(np.square(first.T @ second).sum())
