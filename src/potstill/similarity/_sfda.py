"""SFDA: do classes stay apart in a Fisher space after images are pulled towards the other classes?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from potstill.similarity._checks import centre_columns, check_features, finite_score
from potstill.similarity._components import principal_components
from potstill.similarity._fisher import fit_fisher

if TYPE_CHECKING:
    from potstill.similarity._checks import Array


def sfda(features: Array, labels: Array) -> float:
    """Self-challenging Fisher discriminant analysis: mean probability of the true class after confidence mixing.

    A Gaussian discriminant with one shrunk covariance gives each image class probabilities. Softmax over these
    probabilities gives a confidence c of the true class; the image x is replaced by `c x + (1 - c) o`, where o is the
    mean of the means of all other classes. The score is the mean probability of the true class under a discriminant
    that is fitted to the mixed images with the same shrinkage. That softmax over probabilities, the unweighted o and
    the missing logarithm are those of the published code.

    Ours differs in two points, so that the scale of features and constant dimensions do not matter. The published
    shrinkage exp(-5 sigma(S_W)), with the largest eigenvalue sigma of the within-class scatter, depends on the unit of
    features (for most networks it is 1e-10, its floor); here sigma is divided by the trace of the total scatter. The
    target of shrinkage is the mean variance over the R directions in which images vary, not over all D dimensions.
    The largest eigenvalue is exact, where the published code takes three steps of an iteration. Variance within classes
    counts as at least 1e-4 of all variance.

    Images are scored by a discriminant that has seen their labels. With few labels and many dimensions this alone
    brings the score near 1, whatever the source.

    Args:
        features: `(N, D)`, real.
        labels: `(N,)`, any integers; a class may have one image.

    Returns:
        In [0, 1], higher is better; chance is about the sum of squared class shares.

    Cost: O(N D min(N, D)) time, O(min(N, D)^2) memory beside the features.

    Raises:
        SimilarityError: bad inputs.

    Reference: Shao et al., "Not All Models Are Equal: Predicting Model Transferability in a Self-challenging Fisher
    Space", ECCV 2022 (arXiv 2207.03036), as its published code computes it.

    >>> round(sfda([[0.0, 1.0], [0.2, 0.9], [1.0, 0.0], [0.3, 0.6], [1.0, 0.1]], [0, 0, 1, 1, 1]), 4)
    0.7303
    """
    matrix, index, counts = check_features(features, labels, metric="sfda")
    points = principal_components(centre_columns(matrix))[0]
    first = fit_fisher(points, index, counts)
    own = np.arange(len(index)), index
    confidence = softmax(first.posteriors, axis=1)[own][:, None]
    others = (first.means.sum(axis=0) - first.means) / (len(counts) - 1)
    mixed = confidence * points + (1 - confidence) * others[index]
    second = fit_fisher(mixed, index, counts, first.shrinkage)
    return finite_score(float(second.posteriors[own].mean()), metric="sfda")
