"""LEEP: do the source's own class probabilities predict the target labels?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from potstill.similarity._checks import check_probs, class_sums, finite_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array


def leep(probs: Array, labels: Array) -> float:
    """Log expected empirical prediction: mean log-likelihood of the labels, read off the source's probabilities.

    P(y, z) is estimated by the sum of probs[:, z] over the images of class y, divided by N. The label of an image then
    has likelihood sum_z P(y | z) probs[image, z]. A source class that is never predicted takes no part.

    Args:
        probs: `(N, Z)` of the source's own classes, rows summing to 1 (they are renormalised in float64).
        labels: `(N,)`, any integers; a class may have one image.

    Returns:
        At most 0, higher is better, in nats; minus the label entropy for a source that says the same of all images.

    Cost: O(N Z).

    Raises:
        SimilarityError: bad inputs, such as logits in place of probs.

    Reference: Nguyen, Hassner, Seeger, Archambeau, "LEEP: A New Measure to Evaluate Transferability of Learned
    Representations", ICML 2020, equation 2.

    >>> round(leep([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]], [0, 0, 1, 1]), 4)
    -0.3426
    """
    theta, index, counts = check_probs(probs, labels, metric="leep")
    joint = class_sums(theta, index, counts)
    marginal = joint.sum(axis=0)
    conditional = joint / np.where(marginal > 0, marginal, 1.0)
    likelihood = np.einsum("nz,nz->n", conditional[index], theta)
    return finite_score(float(np.log(likelihood).mean()), metric="leep")
