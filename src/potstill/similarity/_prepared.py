"""Metrics over pairs of images, prepared once to be computed on many subsets and labelings of the same images.

Intervals and permutations ask for a metric some hundred times. What these metrics compare images by does not depend on
labels, so it is computed once for all pairs; a subset then costs a look at its own pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, Int64s, centre_columns, check_matrix
from potstill.similarity._knn import _hits, _votes
from potstill.similarity._pairs import TIE, correlation_rows, z_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

SubsetScore = Callable[[Int64s, Int64s], float]
"""(row numbers, class index of each of these rows) -> score. Class indices need not be contiguous."""

BINS = 4096  # of pair ranks; pairs in one bin count as tied, which moves a score by less than 1e-4


def prepare_parc(features: Array) -> SubsetScore:
    """PARC on subsets, with columns z-scored over all images, and ranks of pairs rounded to one of 4,096."""
    rows = correlation_rows(z_score(check_matrix(features, None, metric="parc", name="features")), metric="parc")
    bins = _rank_bins(rows @ rows.T)

    def score(subset: Int64s, labels: Int64s) -> float:
        chosen = bins if len(subset) == len(bins) else bins[np.ix_(subset, subset)]
        # Every pair is counted twice; the pairs of an image with itself lie in the last bin, which is left out.
        total = np.bincount(chosen.ravel(), minlength=BINS + 1)[:BINS]
        same = np.bincount(chosen[labels[:, None] == labels], minlength=BINS + 1)[:BINS]
        pairs, share = total.sum(), same.sum() / total.sum()
        ranks = np.cumsum(total) - total / 2 - pairs / 2
        variance = (total * ranks**2).sum() / pairs * share * (1 - share)
        if variance <= 0:
            raise SimilarityError("parc: all pairs of the subset are alike.")
        return float(same @ ranks / pairs / np.sqrt(variance))

    return score


def _rank_bins(correlations: Float64s) -> npt.NDArray[np.uint16]:
    """Rank of each pair of images among all pairs, rounded to `BINS` steps, `(N, N)`; the diagonal is `BINS`."""
    once = np.triu_indices(len(correlations), k=1)
    values = correlations[once]
    order = np.argsort(values)
    # Tied pairs share the position of the first of them, so that rounding cannot tear them apart.
    starts = np.concatenate([[True], np.diff(values[order]) > TIE])
    position = np.maximum.accumulate(np.where(starts, np.arange(len(values)), 0))
    rounded = np.empty(len(values), dtype=np.uint16)
    rounded[order] = position * BINS // len(values)
    bins = np.full(correlations.shape, BINS, dtype=np.uint16)
    bins[once] = rounded
    bins.T[once] = rounded
    return bins


def prepare_knn(features: Array) -> SubsetScore:
    """Leave-one-out accuracy of the nearest neighbour on subsets; exact."""
    matrix = check_matrix(features, None, metric="knn", name="features")
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    directions = matrix / np.where(lengths > 0, lengths, 1.0)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -np.inf)

    def score(subset: Int64s, labels: Int64s) -> float:
        chosen = cosines if len(subset) == len(cosines) else cosines[np.ix_(subset, subset)]
        index = np.unique(labels, return_inverse=True)[1]
        return _hits(_votes(chosen, np.eye(index.max() + 1)[index], 1), index) / len(subset)

    return score


def prepare_cka(features: Array) -> SubsetScore:
    """Unbiased CKA with one-hot labels on subsets; exact."""
    matrix = centre_columns(check_matrix(features, None, metric="cka", name="features"))
    kernel = matrix @ matrix.T
    np.fill_diagonal(kernel, 0.0)
    kernel /= np.abs(kernel).max()

    def score(subset: Int64s, labels: Int64s) -> float:
        chosen = kernel if len(subset) == len(kernel) else kernel[np.ix_(subset, subset)]
        same = (labels[:, None] == labels).astype(np.float64)
        np.fill_diagonal(same, 0.0)
        own, others = _hsic(chosen, chosen), _hsic(same, same)
        if min(own, others) <= 1e-14:
            raise SimilarityError("cka: the subset holds no similarity structure.")
        return float(_hsic(chosen, same) / np.sqrt(own * others))

    return score


def _hsic(first: Float64s, second: Float64s) -> float:
    """Unbiased HSIC of two kernel matrices with zero diagonals (Song et al. 2012, equation 4)."""
    count = len(first)
    first_sums, second_sums = first.sum(axis=0), second.sum(axis=0)
    total = first_sums.sum() * second_sums.sum() / ((count - 1) * (count - 2))
    crossed = 2 * (first_sums @ second_sums) / (count - 2)
    return float((np.vdot(first, second) + total - crossed) / (count * (count - 3)))
