"""KITE: how much closer are the features to the labels than to those of an untrained network?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from potstill.errors import SimilarityError
from potstill.similarity._checks import check_labels, finite_score
from potstill.similarity._cka import cka

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

LEAST_ALIGNMENT = 0.01  # with the untrained network; below, the ratio is noise over noise


def kite(features: Array, labels: Array, random_features: Array) -> float:
    """Alignment of the features with the labels, over their alignment with the features of an untrained network.

    Both alignments are the unbiased linear `cka` (with fewer images than dimensions the biased one is near 0.8 for
    noise). What the architecture alone sees, before any training, thus counts against a source. Where the features
    share nothing with the untrained network the ratio is not defined.

    Args:
        features: `(N, D)`, real, N >= 4.
        labels: `(N,)`, any integers; a class may have one image, but not all classes.
        random_features: `(N, E)` of the same images, from the same architecture with random weights.

    Returns:
        A real number, higher is better; about 0 for features unrelated to the labels, not bounded.

    Cost: O(N D min(N, D)) time, O(min(N, D)^2) memory beside the features.

    Raises:
        SimilarityError: bad inputs, all classes with one image, or an alignment with the untrained network below 0.01.

    Reference: Guo, "KITE: A Kernel-based Improved Transferability Estimation Method", arXiv 2405.01603: the ratio of
    target alignment to random alignment. That both are linear and unbiased is our choice.

    >>> few = [[0.0, 1.0], [0.2, 0.9], [1.0, 0.0], [0.9, 0.3], [1.0, 0.1]]
    >>> round(kite(few, [0, 0, 1, 1, 1], [[0.0, 0.5], [0.4, 0.3], [0.2, 0.1], [1.0, 0.3], [0.3, 0.1]]), 4)
    10.0861
    """
    check_labels(labels, metric="kite", min_images=4)
    try:
        target = cka(features, labels)
        random = cka(features, reference_features=random_features)
    except SimilarityError as error:
        message = str(error).removeprefix("cka: ").replace("reference_features", "random_features")
        raise SimilarityError(f"kite: {message}") from error
    if random < LEAST_ALIGNMENT:
        raise SimilarityError(
            f"kite: the features have an alignment of {random:.4f} with those of the untrained network; at least "
            f"{LEAST_ALIGNMENT} is needed for a ratio. Take another metric, such as cka, for this source."
        )
    return finite_score(target / random, metric="kite")
