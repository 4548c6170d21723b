"""H-score: how much of the features' variance do the class means explain?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from potstill.similarity._checks import Float64s, centre_columns, check_features, finite_score
from potstill.similarity._components import label_spectrum

if TYPE_CHECKING:
    from potstill.similarity._checks import Array


def hscore(features: Array, labels: Array) -> float:
    """Shrunk H-score: between-class covariance measured in units of the whole covariance of the features.

    trace(Sigma_a^-1 (1 - a) Sigma_between), where Sigma_a = (1 - a) Sigma + a m I is the Ledoit-Wolf estimate with its
    shrinkage a and mean variance m. The unshrunk score is noise when images are not many more than dimensions.

    Args:
        features: `(N, D)`, real, N >= 3.
        labels: `(N,)`, any integers; a class may have one image.

    Returns:
        In [0, C - 1], higher is better. Near 0 for strong shrinkage: compare sources on the same images only.

    Cost: O(N D min(N, D)) time, O(min(N, D)^2) memory beside the features.

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
    # The trace depends on the singular values of the centred features and on the labels' coordinates along the left
    # singular vectors alone. Where nothing is shrunk, directions without variance count as in a pseudo-inverse.
    eigenvalues, energy = label_spectrum(centred, np.eye(len(counts))[index])
    shrinkage = _ledoit_wolf(centred, eigenvalues)
    kept = (1 - shrinkage) * eigenvalues
    ratio = kept / (kept + shrinkage * eigenvalues.sum() / centred.shape[1])
    return finite_score(float((ratio[:, None] * energy / counts).sum()), metric="hscore")


def _ledoit_wolf(centred: Float64s, eigenvalues: Float64s) -> float:
    """Shrinkage in [0, 1] of Ledoit and Wolf 2004; `eigenvalues` are those of N times the covariance."""
    count, dimensions = centred.shape
    squared_norm = float(np.square(eigenvalues / count).sum())
    distance = squared_norm - (eigenvalues.sum() / count) ** 2 / dimensions
    noise = (float(np.square((centred**2).sum(axis=1)).sum()) / count - squared_norm) / count
    if noise <= 1e-14 * squared_norm or distance <= 1e-14 * squared_norm:
        return 0.0  # every image says the same, or the covariance is already a multiple of the identity
    return float(min(noise / distance, 1.0))
