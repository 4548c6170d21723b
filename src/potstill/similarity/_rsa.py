"""RSA: are images alike for the source where they are alike for another model?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, check_matrix, finite_score
from potstill.similarity._pairs import centred_ranks, correlation_rows, spearman, z_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array


def rsa(features: Array, reference_features: Array) -> float:
    """Representation similarity analysis: rank correlation of the distances of images in two models.

    Both sides are z-scored by column (constant columns become zero); the distance of two images is one minus the
    Pearson correlation of their rows. The score is Spearman's correlation of the two distances over all pairs of
    images, each pair once; distances that differ by rounding alone (1e-12) share their mean rank. No labels are used:
    the reference stands for the target, so it should be a model that was trained on it.

    Args:
        features: `(N, D)`, real; D >= 2, N >= 3.
        reference_features: `(N, E)` of the same images; E >= 2.

    Returns:
        In [-1, 1], higher is better, about 0 for unrelated features, 1 for the same order of distances.

    Cost: O(N^2 (D + E) + N^2 log N) time, O(N^2) memory.

    Raises:
        SimilarityError: bad inputs, an image with constant z-scored features, or all pairs alike.

    Reference: Dwivedi, Roig, "Representation Similarity Analysis for Efficient Task Taxonomy & Transfer Learning", CVPR
    2019, section 3.

    >>> round(rsa([[0.0, 0.1, 1.0], [0.1, 0.0, 0.9], [1.0, 0.8, 0.0]], [[0.0, 1.0], [0.3, 1.0], [2.0, 0.0]]), 4)
    0.866
    """
    first = check_matrix(features, None, metric="rsa", name="features")
    second = check_matrix(reference_features, None, metric="rsa", name="reference_features")
    if len(first) != len(second):
        raise SimilarityError(
            f"rsa: {len(first)} rows of features but {len(second)} rows of reference_features; give one row an image."
        )
    if len(first) < 3:
        raise SimilarityError(f"rsa: needs at least 3 images, got {len(first)}.")
    return finite_score(spearman(_ranks_of(first), _ranks_of(second)), metric="rsa")


def _ranks_of(matrix: Float64s) -> Float64s:
    """Centred ranks of the correlations of all pairs of images, `(N (N - 1) / 2,)`."""
    rows = correlation_rows(z_score(matrix), metric="rsa")
    return centred_ranks((rows @ rows.T)[np.triu_indices(len(rows), k=1)], metric="rsa")
