"""H-score: how much of the features' variance do the class means explain?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from potstill.similarity._checks import Float64s, centre_columns, check_features, class_sums, finite_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

FLOOR = 1e-10  # least ridge, in traces of the scatter matrix: keeps it invertible when nothing is shrunk


def hscore(features: Array, labels: Array) -> float:
    """Shrunk H-score: between-class covariance measured in units of the whole covariance of the features.

    trace(Sigma_a^-1 (1 - a) Sigma_between), where Sigma_a = (1 - a) Sigma + a m I is the Ledoit-Wolf estimate with its
    shrinkage a and mean variance m. The unshrunk score is noise when images are not many more than dimensions.

    Args:
        features: `(N, D)`, real, N >= 3.
        labels: `(N,)`, any integers; a class may have one image.

    Returns:
        In [0, C - 1], higher is better. Near 0 for strong shrinkage: compare sources on the same images only.

    Cost: O(N D min(N, D)) time; the smaller of the N x N and D x D systems is solved.

    Raises:
        SimilarityError: bad inputs.

    Reference: Ibrahim, Ponomareva, Mazumder, "Newer is not always better: rethinking transferability metrics, their
    peculiarities, stability and performance", ECML 2022 (arXiv 2110.06893), section 4; shrinkage of Ledoit and Wolf,
    "A well-conditioned estimator for large-dimensional covariance matrices", 2004, as in scikit-learn.

    >>> round(hscore([[0.0, 1.0], [0.2, 0.9], [1.0, 0.0], [0.9, 0.3], [1.0, 0.1]], [0, 0, 1, 1, 1]), 4)
    0.9028
    """
    matrix, index, counts = check_features(features, labels, metric="hscore", min_images=3)
    centred = centre_columns(matrix)
    count, dimensions = centred.shape
    wide = count < dimensions
    scatter = centred @ centred.T if wide else centred.T @ centred
    trace = float(np.trace(scatter))
    shrinkage = _ledoit_wolf(centred, scatter)
    # Sigma_a = (1 - a)/N (X'X + ridge I): the score is N trace((X'X + ridge I)^-1 M'M), rows of M = class means times
    # sqrt(n_c / N). With M = A X and X (X'X + ridge I)^-1 X' = G (G + ridge I)^-1, G = XX', it can be had in N x N.
    ridge = max(shrinkage * trace / dimensions / max(1 - shrinkage, FLOOR), FLOOR * trace / dimensions)
    factor = cho_factor(scatter + ridge * np.eye(len(scatter)), lower=True)
    if wide:
        means = np.eye(len(counts))[index] / np.sqrt(counts)
        score = np.vdot(means, scatter @ cho_solve(factor, means))
    else:
        sums = class_sums(centred, index, counts) / np.sqrt(counts)[:, None]
        score = np.vdot(sums.T, cho_solve(factor, sums.T))
    return finite_score(float(score), metric="hscore")


def _ledoit_wolf(centred: Float64s, scatter: Float64s) -> float:
    """Shrinkage in [0, 1] of Ledoit and Wolf 2004; `scatter` is X'X or XX', which have the same norm and trace."""
    count, dimensions = centred.shape
    squared_norm = float(np.square(scatter / count).sum())
    distance = squared_norm - np.trace(scatter / count) ** 2 / dimensions
    noise = (float(np.square((centred**2).sum(axis=1)).sum()) / count - squared_norm) / count
    if noise <= 0 or distance <= 1e-14 * squared_norm:
        return 0.0
    return float(min(noise / distance, 1.0))
