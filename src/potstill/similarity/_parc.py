"""PARC: do images of the same class have correlated features?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, centre_columns, check_features, finite_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

TIE = 1e-12  # pair correlations closer than this differ by rounding alone (duplicates, two feature dimensions)


def parc(features: Array, labels: Array) -> float:
    """Pairwise annotation representation comparison: rank correlation of feature distance and label distance.

    Features are z-scored by column (constant columns become zero). The distance of two images is one minus the Pearson
    correlation of their rows; their label distance is 0 within a class and 1 across. The score is Spearman's
    correlation of the two over all pairs. Since label distance has two values, Spearman reduces exactly to mean ranks
    (the rank-sum form, with tied distances sharing their mean rank): `sqrt(3 q (1 - q)) (2 AUC - 1)` without ties,
    where q is the share of different-class pairs. Correlating one-hot rows in floating point instead breaks the ties
    of the label side by rounding and makes the score depend on how classes are numbered.

    Args:
        features: `(N, D)`, real; D >= 2.
        labels: `(N,)`, any integers; a class may have one image, but not all classes.

    Returns:
        In [-1, 1], higher is better, about 0 for unrelated features. The maximum depends on q: 0.52 for 10 balanced
        classes, 0.27 for 37, so compare sources on one target, not targets. (The published code multiplies by 100 and
        first reduces to 32 principal components; neither is done here.)

    Cost: O(N^2 D + N^2 log N) time, O(N^2) memory.

    Raises:
        SimilarityError: no class has two images, an image has constant z-scored features, or all pairs are alike.

    Reference: Bolya, Mittapalli, Hoffman, "Scalable Diverse Model Selection for Accessible Transfer Learning",
    NeurIPS 2021, section 4.

    >>> round(parc([[0.0, 0.1, 1.0], [0.1, 0.0, 0.9], [1.0, 0.8, 0.0], [0.9, 1.0, 0.2]], [0, 0, 1, 1]), 4)
    0.8281
    """
    matrix, index, counts = check_features(features, labels, metric="parc", min_images=3)
    if counts.max() < 2:
        raise SimilarityError("parc: needs at least one class with 2 images; every class has one.")
    rows = _correlation_rows(_z_score(matrix))
    once = np.triu(np.ones((len(rows), len(rows)), dtype=bool), k=1)  # each pair of images once
    correlations = (rows @ rows.T)[once]
    same_class = (index[:, None] == index)[once]
    return finite_score(_two_valued_spearman(correlations, same_class), metric="parc")


def _z_score(matrix: Float64s) -> Float64s:
    """Columns with mean 0 and standard deviation 1; constant columns are zero."""
    scored = centre_columns(matrix)
    deviation = np.sqrt(np.einsum("nd,nd->d", scored, scored) / len(scored))
    scored /= np.where(deviation > 0, deviation, 1.0)
    return scored


def _correlation_rows(scored: Float64s) -> Float64s:
    """Rows centred and of length one, so that their products are Pearson correlations."""
    centred = scored - scored.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = np.flatnonzero(lengths[:, 0] <= 1e-12 * np.abs(scored).max())
    if len(flat):
        raise SimilarityError(
            f"parc: {len(flat)} of {len(scored)} images (first: row {flat[0]}) have the same z-scored value in all "
            f"{scored.shape[1]} dimensions, so their correlation with other images is not defined."
        )
    return np.asarray(centred / lengths, dtype=np.float64)


def _two_valued_spearman(values: Float64s, is_one: npt.NDArray[np.bool_]) -> float:
    """Spearman's correlation of `values` with a 0/1 variable, tied values (within `TIE`) sharing their mean rank."""
    total, ones = len(values), int(is_one.sum())
    ordered = np.sort(values)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ordered) > TIE) + 1])
    sizes = np.diff(np.append(starts, total)).astype(np.float64)
    if len(starts) == 1:
        raise SimilarityError("parc: all pairs of images are equally similar, so ranks are not defined.")
    mean_ranks = starts + (sizes - 1) / 2 - (total - 1) / 2  # centred: they sum to zero over all pairs
    positions = np.searchsorted(ordered, values[is_one])
    rank_sum = mean_ranks[np.searchsorted(starts, positions, side="right") - 1].sum()
    rank_variance = (sizes * mean_ranks**2).sum() / total
    share = ones / total
    return float(rank_sum / total / np.sqrt(rank_variance * share * (1 - share)))
