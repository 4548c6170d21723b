"""Probe: how often is a linear classifier right about an image that it has not seen?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from potstill.probes import held_out_logits
from potstill.similarity._checks import check_features, finite_score

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

TIE = 1e-9  # logits closer than this differ by rounding alone


def probe(features: Array, labels: Array) -> float:
    """Leave-one-out accuracy of a ridge probe.

    Each image is classified by the ridge regression of one-hot labels that is fitted to all other images, exactly and
    in closed form, so that there are no folds to draw and the order of images does not matter. One L2 penalty serves
    all images; it is the one with the least squared leave-one-out error. Classes that tie for the highest output share
    the hit.

    Args:
        features: `(N, D)`, real, N >= 3.
        labels: `(N,)`, any integers; an image alone in its class counts as a miss.

    Returns:
        In [0, 1], higher is better. Chance is about the largest share of a class.

    Cost: O(N D min(N, D)) for one eigendecomposition, O(N min(N, D) C) for each of 15 penalties.

    Raises:
        SimilarityError: bad inputs.

    Reference: Allen, Technometrics 1974, for leave-one-out residuals of ridge regression; a cross-validated linear
    classifier is a baseline of Bolya, Mittapalli, Hoffman, NeurIPS 2021.

    >>> probe([[0.0, 1.0], [0.2, 0.9], [1.0, 0.0], [0.9, 0.3], [1.0, 0.1]], [0, 0, 1, 1, 1])
    1.0
    """
    matrix, index, counts = check_features(features, labels, metric="probe", min_images=3)
    logits = held_out_logits(matrix, index, len(counts))
    winners = logits > logits.max(axis=1, keepdims=True) - TIE
    hits = winners[np.arange(len(index)), index] / winners.sum(axis=1)
    return finite_score(float(hits[counts[index] > 1].sum() / len(index)), metric="probe")
