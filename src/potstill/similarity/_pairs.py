"""Images compared two by two, for the metrics that do."""

from __future__ import annotations

import numpy as np

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, centre_columns

TIE = 1e-12  # pair correlations closer than this differ by rounding alone (duplicates, two feature dimensions)


def z_score(matrix: Float64s) -> Float64s:
    """Columns with mean 0 and standard deviation 1; constant columns are zero."""
    scored = centre_columns(matrix)
    deviation = np.sqrt(np.einsum("nd,nd->d", scored, scored) / len(scored))
    scored /= np.where(deviation > 0, deviation, 1.0)
    return scored


def correlation_rows(scored: Float64s, *, metric: str) -> Float64s:
    """Rows centred and of length one, so that their products are Pearson correlations."""
    centred = scored - scored.mean(axis=1, keepdims=True)
    lengths = np.sqrt(np.einsum("nd,nd->n", centred, centred))
    flat = np.flatnonzero(lengths <= 1e-12 * max(scored.max(), -scored.min()))
    if len(flat):
        raise SimilarityError(
            f"{metric}: {len(flat)} of {len(scored)} images (first: row {flat[0]}) have the same z-scored value in all "
            f"{scored.shape[1]} dimensions, so their correlation with other images is not defined."
        )
    centred /= lengths[:, None]
    return np.asarray(centred, dtype=np.float64)


def centred_ranks(pairs: Float64s, *, metric: str) -> Float64s:
    """Ranks of the pairs' values less their mean, same shape; values tied within `TIE` share their mean rank."""
    order = np.argsort(pairs)
    starts = np.concatenate([[True], np.diff(pairs[order]) > TIE])
    first = np.flatnonzero(starts)
    if len(first) == 1:
        raise SimilarityError(f"{metric}: all pairs of images are equally similar, so ranks are not defined.")
    sizes = np.diff(np.append(first, len(pairs)))
    ranks = np.empty(len(pairs))
    ranks[order] = np.repeat(first + (sizes - 1) / 2 - (len(pairs) - 1) / 2, sizes)
    return ranks


def spearman(ranks: Float64s, other_ranks: Float64s) -> float:
    """Spearman's correlation of two centred rankings of the same pairs."""
    correlation = ranks @ other_ranks / (np.linalg.norm(ranks) * np.linalg.norm(other_ranks))
    return float(np.clip(correlation, -1.0, 1.0))
