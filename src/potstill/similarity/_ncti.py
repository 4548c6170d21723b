"""NCTI: how near is each source to the neural collapse that fine-tuning on the target would end in?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

from potstill.errors import SimilarityError
from potstill.similarity._checks import Float64s, Int64s, centre_columns, check_features, check_labels, finite_score
from potstill.similarity._components import principal_components, with_ties
from potstill.similarity._fisher import Fisher, fit_fisher

if TYPE_CHECKING:
    from potstill.similarity._checks import Array

MOST_COMPONENTS = 64
RANK = 1e-9  # class means that differ by less than this share of the length of all images differ by rounding
NO_SPREAD = 1e-6  # a term that differs by less over all sources says the same of all


def ncti(features: Mapping[str, Array], labels: Array) -> dict[str, float]:
    """Neural collapse transferability index: three signs of collapse, each compared over the candidate sources.

    The features of a source are reduced to their 64 first principal components (all of them where there are fewer, and
    all that are tied with the last), and a regularised Fisher discriminant is fitted to them. The terms are

    - geometry: the nuclear norm of the centred images in Fisher space, large where class means spread out evenly;
    - classifier: the mean probability of the true class, high where the nearest class mean is the right one;
    - spread: the logarithm of the summed nuclear norms of each class's probabilities, smaller where the images of a
      class are told alike. Near-uniform probabilities make it small too; the other terms then speak against the source.

    Each is brought to [0, 1] by its smallest and largest value over all sources; a term that is the same for all (to
    1e-6) counts 0. The score is geometry + classifier - spread, with equal weights as in the published code. It
    therefore depends on the set of sources: scores of different sets are not comparable.

    The published code takes a randomised decomposition and the shrinkage exp(-variance), which depends on the unit of
    features; here the decomposition is exact and the shrinkage is that of `sfda`. Fisher space is spanned by class
    means, so that it has at most C - 1 dimensions.

    Args:
        features: for each source its `(N, D)` real features of the same images; D may differ.
        labels: `(N,)`, any integers; a class may have one image.

    Returns:
        {source: score} in the given order, scores in [-1, 2], higher is better; 0 for a source alone.

    Cost: O(N D min(N, D) + N C^2) time for each source, O(min(N, D)^2 + N C) memory.

    Raises:
        SimilarityError: no source, or bad inputs; it names the source, also in its `source`.

    Reference: Wang et al., "How Far Pre-trained Models Are from Neural Collapse on the Target Dataset Informs their
    Transferability", ICCV 2023, as its published code computes it.

    >>> near, far = [[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]], [[0.0, 1.0], [1.0, 0.1], [0.1, 0.9], [0.9, 0.1]]
    >>> ncti({"far": far, "near": near}, [0, 0, 1, 1])
    {'far': 0.0, 'near': 1.0}
    """
    if not features:
        raise SimilarityError("ncti: needs the features of at least one source, got none.")
    index, _ = check_labels(labels, metric="ncti", min_images=2)
    terms = np.array([_terms_of(name, each, index) for name, each in features.items()])
    lowest, spread = terms.min(axis=0), np.ptp(terms, axis=0)
    known = spread > NO_SPREAD * np.maximum(1.0, np.abs(terms).max(axis=0))
    normalised = (terms - lowest) / np.where(known, spread, np.inf)
    scores = normalised[:, 0] + normalised[:, 1] - normalised[:, 2]
    return {name: finite_score(score, metric="ncti") for name, score in zip(features, scores, strict=True)}


def _terms_of(name: str, features: Array, index: Int64s) -> tuple[float, float, float]:
    """Geometry, classifier and spread of one source."""
    try:
        matrix, _, counts = check_features(features, index, metric="ncti")
    except SimilarityError as error:
        raise SimilarityError(f"ncti: source '{name}': {str(error).removeprefix('ncti: ')}", source=name) from error
    points, squares = principal_components(centre_columns(matrix))
    points = points[:, : with_ties(squares, min(MOST_COMPONENTS, len(squares)))]
    fisher = fit_fisher(points, index, counts)
    geometry = _nuclear_norm(_in_fisher_space(points, fisher))
    classifier = float(fisher.posteriors[np.arange(len(index)), index].mean())
    spread = sum(_nuclear_norm(fisher.posteriors[index == class_index]) for class_index in range(len(counts)))
    return geometry, classifier, float(np.log(spread))


def _in_fisher_space(points: Float64s, fisher: Fisher) -> Float64s:
    """Images where the scatter within classes is the identity, along the directions in which class means differ."""
    root = np.linalg.cholesky(fisher.scatter)
    whitened = solve_triangular(root, np.concatenate([points, fisher.means]).T, lower=True).T
    images, means = whitened[: len(points)], whitened[len(points) :]
    _, lengths, directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    kept = lengths > RANK * np.linalg.norm(images)
    return np.asarray(images @ directions[kept].T, dtype=np.float64)


def _nuclear_norm(matrix: Float64s) -> float:
    """Sum of singular values; 0 for a matrix without columns."""
    return float(np.linalg.svd(matrix, compute_uv=False).sum())
