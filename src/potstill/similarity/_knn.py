"""kNN: is the most similar other image of the same class?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, Int64s, check_features, finite_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

TIE = 1e-12  # cosines closer than this differ by rounding alone
ROWS_AT_ONCE = 1024


def knn(features: Array, labels: Array, *, k: int = 1) -> float:
    """Leave-one-out accuracy of a k-nearest-neighbour classifier under cosine similarity.

    Each image is classified by the other images; it is left out by its row number, so an exact copy of it stays in.
    Ties do not depend on the order of images: neighbours tied for the last places share these places equally, and
    classes tied for most votes share the hit. A row of zeros has cosine 0 with every image.

    Args:
        features: `(N, D)`, real.
        labels: `(N,)`, any integers; an image alone in its class counts as a miss.
        k: number of neighbours, 1 to N - 1.

    Returns:
        In [0, 1], higher is better; chance is about the sum of squared class shares.

    Cost: O(N^2 (D + C)) time, O(N D) memory.

    Raises:
        SimilarityError: bad inputs, or k outside 1..N - 1.

    Reference: leave-one-out 1-NN as a baseline of Bolya, Mittapalli, Hoffman, NeurIPS 2021, section 4 (there with
    Euclidean distance).

    >>> knn([[1.0, 0.0], [0.9, 0.1], [0.1, 0.9], [0.0, 1.0], [0.8, 0.3]], [0, 0, 1, 1, 1])
    0.8
    """
    matrix, index, counts = check_features(features, labels, metric="knn")
    if not 1 <= k < len(matrix):
        raise SimilarityError(f"knn: k must be from 1 to {len(matrix) - 1} (images less one), got {k}.")
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    directions = matrix / np.where(lengths > 0, lengths, 1.0)
    one_hot = np.eye(len(counts))[index]
    hits = 0.0
    for start in range(0, len(directions), ROWS_AT_ONCE):
        block = slice(start, min(start + ROWS_AT_ONCE, len(directions)))
        cosines = directions[block] @ directions.T
        rows = np.arange(block.stop - start)
        cosines[rows, start + rows] = -np.inf  # itself, by row number
        hits += _hits(_votes(cosines, one_hot, k), index[block])
    return finite_score(hits / len(matrix), metric="knn")


def _votes(cosines: Float64s, one_hot: Float64s, k: int) -> Float64s:
    """Votes of the k nearest for each class; those tied with the k-th share the places that are left."""
    last = (cosines.max(axis=1) if k == 1 else np.partition(cosines, -k, axis=1)[:, -k])[:, None]
    nearer = cosines > last + TIE
    tied = np.abs(cosines - last) <= TIE
    share = (k - nearer.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
    return np.asarray((nearer + share * tied) @ one_hot, dtype=np.float64)


def _hits(votes: Float64s, index: Int64s) -> float:
    """Sum over images of 1 / (number of winning classes) where the true class is among the winners."""
    winners = votes > votes.max(axis=1, keepdims=True) - 1e-9
    return float((winners[np.arange(len(index)), index] / winners.sum(axis=1)).sum())
