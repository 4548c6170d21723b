"""TransRate: how many bits does the class of an image save in describing its features?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, centre_columns, check_features, finite_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array


def transrate(features: Array, labels: Array, *, epsilon: float = 1e-4) -> float:
    """Coding rate of all features, less the mean coding rate of the features of a class: their mutual information.

    The coding rate of n rows Z, centred over all images, is `1/2 log det(I + Z'Z / (n epsilon))`, in nats. Class rates
    are averaged by class size n_c / n, as mutual information asks for and as the authors' experiments do; the ten-line
    version that most public code follows divides by C.

    The score depends on the unit of the features: `epsilon` is a variance in that unit, as in the ten-line version. The
    authors' experiments scale the features to a total variance of 1, divide by the rank, and take an epsilon of 1e-5 to
    5e-3 that is chosen for each target. The score also grows with the dimensions in which images vary, related to the
    classes or not: with fewer images than dimensions noise scores high, and only sources of one architecture compare
    well.

    Args:
        features: `(N, D)`, real.
        labels: `(N,)`, any integers; a class may have one image.
        epsilon: > 0, distortion that is allowed for; 1e-4 is that of the ten-line version.

    Returns:
        At least 0, higher is better, in nats; not bounded.

    Cost: O(N D min(N, D)) time, O(min(N, D)^2) memory beside the features.

    Raises:
        SimilarityError: bad inputs, or epsilon not positive.

    Reference: Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022 (arXiv 2106.09362), the coding
    rates R(Z, epsilon) - R(Z, epsilon | Y).

    >>> round(transrate([[0.0, 1.0], [0.2, 0.9], [1.0, 0.0], [0.9, 0.3], [1.0, 0.1]], [0, 0, 1, 1, 1]), 4)
    0.1312
    """
    if not 0 < epsilon < np.inf:
        raise SimilarityError(f"transrate: epsilon must be a positive number, got {epsilon}.")
    matrix, index, counts = check_features(features, labels, metric="transrate", scaled=False)
    matrix = centre_columns(matrix)
    unit = float(np.abs(matrix).max())  # squares of values far from 1 would overflow or vanish
    log_share = 2 * np.log(unit) - np.log(epsilon)
    order = np.argsort(index, kind="stable")
    classes = np.split(matrix[order] / unit, np.cumsum(counts)[:-1])
    of_class = sum(len(rows) / len(matrix) * _coding_rate(rows, log_share) for rows in classes)
    return finite_score(max(_coding_rate(matrix / unit, log_share) - of_class, 0.0), metric="transrate")


def _coding_rate(rows: Float64s, log_share: float) -> float:
    """1/2 log det(I + Z'Z share / n), which Sylvester's identity allows to take on the smaller side.

    Eigenvalues at rounding level count as zero: `share` may be 1e15, and would make much of them.
    """
    eigenvalues = np.linalg.eigvalsh(rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows)
    kept = eigenvalues[eigenvalues > eigenvalues[-1] * max(rows.shape) * np.finfo(np.float64).eps]
    return float(np.logaddexp(0.0, np.log(kept) + log_share - np.log(len(rows))).sum() / 2)
