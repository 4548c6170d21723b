"""GBC: how much do the classes overlap, seen as Gaussians?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, Int64s, centre_columns, check_features, class_sums, finite_score
from potstill.similarity._components import principal_components, with_ties

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

MOST_COMPONENTS = 64
NARROWEST = 1e-4  # variance of a class over the mean variance of all images; copies of one image would have none


def gbc(features: Array, labels: Array, *, covariance: Literal["spherical", "diagonal"] = "spherical") -> float:
    """Gaussian Bhattacharyya coefficient: minus the overlap of the classes, summed over all ordered pairs of classes.

    Features are reduced to their 64 first principal components (all of them where there are fewer, and all that are
    tied with the last), each class becomes a Gaussian with its own mean and variance, and the overlap of two classes is
    their Bhattacharyya coefficient. Variances are unbiased; with few images the maximum-likelihood ones, which the
    published code takes, are far too small. A class with one image has no variance of its own and takes that within all
    classes. No variance is smaller than 1e-4 of the mean variance of the images (there: than 1e-4 in their unit).

    Args:
        features: `(N, D)`, real.
        labels: `(N,)`, any integers; a class may have one image, but not all classes.
        covariance: one variance for all components of a class, or one for each component.

    Returns:
        In [-C (C - 1), 0], higher is better; 0 for classes that do not overlap.

    Cost: O(N D min(N, D) + C^2 R) time for R components, O(min(N, D)^2) memory beside the features.

    Raises:
        SimilarityError: bad inputs, all classes with one image, or an unknown covariance.

    Reference: Pandy et al., "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022 (arXiv
    2111.12780), the sum of exp(-D_B) over pairs of classes.

    >>> round(gbc([[0.0, 1.0], [0.2, 0.9], [1.0, 0.0], [0.3, 0.6], [1.0, 0.1]], [0, 0, 1, 1, 1]), 4)
    -0.2167
    """
    if covariance not in ("spherical", "diagonal"):
        raise SimilarityError(f"gbc: covariance must be 'spherical' or 'diagonal', got '{covariance}'.")
    matrix, index, counts = check_features(features, labels, metric="gbc")
    if counts.max() < 2:
        raise SimilarityError("gbc: needs at least one class with 2 images for a variance; every class has one.")
    points, squares = principal_components(centre_columns(matrix))
    points = points[:, : with_ties(squares, min(MOST_COMPONENTS, len(squares)))]
    means = class_sums(points, index, counts) / counts[:, None]
    variances = _class_variances(points - means[index], index, counts, spherical=covariance == "spherical")
    variances = np.maximum(variances, NARROWEST * float(np.vdot(points, points)) / points.size)
    overlap = sum(_overlaps(means, variances, number) for number in range(len(counts)))
    return finite_score(-overlap, metric="gbc")


def _class_variances(residuals: Float64s, index: Int64s, counts: Int64s, *, spherical: bool) -> Float64s:
    """Unbiased variances of each class `(C, R)`, the same in all directions if `spherical`."""
    squares = class_sums(residuals**2, index, counts)
    if spherical:
        squares = np.broadcast_to(squares.mean(axis=1, keepdims=True), squares.shape)
    pooled = squares.sum(axis=0) / (counts - 1).sum()
    own = squares / np.maximum(counts - 1, 1)[:, None]
    return np.asarray(np.where((counts > 1)[:, None], own, pooled), dtype=np.float64)


def _overlaps(means: Float64s, variances: Float64s, number: int) -> float:
    """Sum of the Bhattacharyya coefficients of class `number` with all other classes."""
    both = (variances + variances[number]) / 2
    apart = ((means - means[number]) ** 2 / both).sum(axis=1) / 8
    unlike = np.log(both / np.sqrt(variances * variances[number])).sum(axis=1) / 2
    return float(np.exp(-(apart + unlike)).sum() - 1.0)  # without the class itself, whose coefficient is 1
