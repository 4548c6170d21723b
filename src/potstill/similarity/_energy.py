"""Energy (ETran): does the source respond to the images at all, and do its features tell the classes apart?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from potstill.similarity._checks import Float64s, centre_columns, check_features, check_matrix, finite_score
from potstill.similarity._components import principal_components
from potstill.similarity._fisher import fit_fisher

if TYPE_CHECKING:
    from potstill.similarity._checks import Array


def energy(features: Array, labels: Array) -> float:
    """Label-free energy term plus a discriminant term: familiarity of the images, and separation of the classes.

    The first term is `free_energy`; the second the mean probability of the true class under a regularised Fisher
    discriminant. The published code brings each term to 0 to 1 over all candidate models and weighs them 0.15 and 0.85.
    A score of one source cannot do that, so the first term is put on a scale of its own, and both are simply added.

    The discriminant is fitted to the images that it is judged on, as published. With fewer images than dimensions it
    tells even noise apart, the second term is then near 1 for every source, and the first decides.

    Args:
        features: `(N, D)`, real.
        labels: `(N,)`, any integers; a class may have one image.

    Returns:
        A real number, higher is better; the second term is in [0, 1], the first usually in 0 to 3.

    Cost: O(N D min(N, D)) time, O(min(N, D)^2) memory beside the features.

    Raises:
        SimilarityError: bad inputs.

    Reference: Gholami et al., "ETran: Energy-Based Transferability Estimation", ICCV 2023 (arXiv 2308.02027), as the
    published code computes it: on features, not on logits, so that a source needs no classifier.

    >>> round(energy([[0.0, 1.0], [0.2, 0.9], [1.0, 0.0], [0.3, 0.6], [1.0, 0.1]], [0, 0, 1, 1, 1]), 4)
    1.7569
    """
    matrix, index, counts = check_features(features, labels, metric="energy")
    fisher = fit_fisher(principal_components(centre_columns(matrix))[0], index, counts)
    separation = float(fisher.posteriors[np.arange(len(index)), index].mean())
    return finite_score(_free_energy(matrix) + separation, metric="energy")


def free_energy(features: Array) -> float:
    """Minus the free energy of the features, averaged over the half of the images in which it is lowest. No labels.

    For an image x it is log mean_d exp(x_d / r), with r the root mean square of all features; the published code takes
    the sum in whatever unit features come, and of the lowest 0.5 % of images only, which is none of fewer than 200.
    High where few dimensions respond strongly, as they do to familiar images.

    Args:
        features: `(N, D)`, real.

    Returns:
        A real number, higher is better.

    Cost: O(N D).

    Raises:
        SimilarityError: bad inputs.

    Reference: as `energy`, its label-free term; the energy is that of Liu et al., NeurIPS 2020.

    >>> round(free_energy([[0.0, 3.0], [1.0, 1.0]]), 4)
    0.603
    """
    return finite_score(_free_energy(check_matrix(features, None, metric="energy", name="features")), metric="energy")


def _free_energy(matrix: Float64s) -> float:
    responses = matrix / np.sqrt(np.vdot(matrix, matrix) / matrix.size)
    energies = np.sort(logsumexp(responses, axis=1) - np.log(matrix.shape[1]))
    return float(energies[: max(1, len(energies) // 2)].mean())
