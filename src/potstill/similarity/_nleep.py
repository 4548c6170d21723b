"""NLEEP: do clusters of the features predict the target labels?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from potstill.similarity._checks import Float64s, Int64s, centre_columns, check_features, finite_score
from potstill.similarity._components import principal_components, with_ties
from potstill.similarity._leep import leep

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

ENERGY = 0.8
MOST_STEPS = 100
LEAST_GAIN = 1e-3  # of log-likelihood an image; these two are scikit-learn's defaults
NARROWEST = 1e-4  # variance of a component over the mean variance of the images
SAME = 1e-13  # squared distance of means that coincide but for rounding, over the largest squared length of a mean


def nleep(features: Array, labels: Array) -> float:
    """LEEP over clusters: mean log-likelihood of the labels, read off the posteriors of a Gaussian mixture.

    Features are reduced to the principal components that hold 80 % of their variance (with all components tied with
    the last one). A mixture of Gaussians is fitted to them, and its posteriors take the place of the source's
    probabilities in `leep`.

    The published code starts five components a class with full covariances by random k-means and drops the logarithm
    of LEEP; with 2 to 20 labels a class this fits the images themselves and changes with the seed. Here there is one
    component a class, starting at the class mean, with one variance for all directions and components. From there
    expectation-maximisation sees no labels, until a step gains less than 1e-3 of log-likelihood an image. A start at
    class means favors the true classes, the more so the fewer the images. Class means that coincide make one component,
    since only rounding could part them. The variance is at least 1e-4 of the mean variance of the kept components.

    Args:
        features: `(N, D)`, real.
        labels: `(N,)`, any integers; a class may have one image.

    Returns:
        At most 0, higher is better, in nats; near minus the label entropy for clusters unrelated to the classes.

    Cost: O(N D min(N, D) + T N R C) time for R components kept and T <= 100 steps, O(min(N, D)^2 + N C) memory beside
    the features.

    Raises:
        SimilarityError: bad inputs.

    Reference: Li et al., "Ranking Neural Checkpoints", CVPR 2021 (arXiv 2011.11200); LEEP of Nguyen et al., ICML 2020,
    equation 2. Energy and mixture as in code published with later papers.

    >>> round(nleep([[0.0, 1.0], [0.2, 0.9], [1.0, 0.0], [0.3, 0.6], [1.0, 0.1]], [0, 0, 1, 1, 1]), 4)
    -0.3819
    """
    matrix, index, counts = check_features(features, labels, metric="nleep")
    points, squares = principal_components(centre_columns(matrix))
    enough = int(np.searchsorted(np.cumsum(squares), ENERGY * squares.sum())) + 1
    points = points[:, : with_ties(squares, enough)]
    posteriors = _mixture_posteriors(points, _start(points, index, counts))
    return finite_score(leep(posteriors, index), metric="nleep")


def _start(points: Float64s, index: Int64s, counts: Int64s) -> Float64s:
    """Each image in the component of its class `(N, C)`, or in that of the first class with the same mean."""
    one_hot = np.eye(len(counts))[index]
    means = one_hot.T @ points / counts[:, None]
    lengths = (means**2).sum(axis=1)
    apart = lengths[:, None] + lengths - 2 * (means @ means.T)
    first = (apart <= SAME * lengths.max()).argmax(axis=1)
    return np.asarray(np.eye(len(counts))[first[index]], dtype=np.float64)


def _mixture_posteriors(points: Float64s, posteriors: Float64s) -> Float64s:
    """Posteriors `(N, K)` of a mixture of Gaussians with one common variance, by expectation-maximisation."""
    images, dimensions = points.shape
    total, likelihood = float(np.vdot(points, points)), -np.inf
    for _ in range(MOST_STEPS):
        sizes = np.maximum(posteriors.sum(axis=0), np.finfo(np.float64).tiny)  # a component may fade away
        means = posteriors.T @ points / sizes[:, None]
        lengths = (means**2).sum(axis=1)
        # What the means leave of the sum of squares is the spread around them.
        variance = max(total - float(sizes @ lengths), NARROWEST * total) / (images * dimensions)
        joint = np.log(sizes / images) + (points @ means.T - lengths / 2) / variance  # less what all share
        evidence = logsumexp(joint, axis=1, keepdims=True)
        posteriors = np.exp(joint - evidence)
        before, likelihood = likelihood, float(evidence.mean()) - _shared(total / images, variance, dimensions)
        if likelihood - before < LEAST_GAIN:
            break
    return posteriors


def _shared(square: float, variance: float, dimensions: int) -> float:
    """Part of minus the mean log-likelihood of an image that does not depend on the component, without constants."""
    return (square / variance + dimensions * float(np.log(variance))) / 2
