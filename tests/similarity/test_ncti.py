import numpy as np
import pytest

from potstill.errors import SimilarityError
from potstill.similarity import ncti


def naive_terms(features, labels):
    """The three terms from D x D matrices: PCA, generalised eigenvectors, class by class."""
    names = np.unique(labels)
    centred = features - features.mean(axis=0)
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = np.argsort(variances)[::-1][: min(64, np.linalg.matrix_rank(centred))]
    points = centred @ vectors[:, kept]
    means = np.stack([points[labels == name].mean(axis=0) for name in names])
    index = np.searchsorted(names, labels)
    within = (points - means[index]).T @ (points - means[index]) / len(points)
    total, size = np.trace(points.T @ points) / len(points), len(within)
    shrinkage = np.exp(-5 * np.linalg.eigvalsh(within).max() / total)
    within = (1 - shrinkage) * within + max(shrinkage * np.trace(within), 1e-4 * total) / size * np.eye(size)
    # Directions w with largest between-class variance where w' S_W w = 1.
    root = np.linalg.inv(np.linalg.cholesky(within))
    between = root @ np.cov(means, rowvar=False) @ root.T
    strength, directions = np.linalg.eigh(np.atleast_2d(between))
    scalings = root.T @ directions[:, strength > 1e-12 * strength.max()]
    geometry = np.linalg.norm(points @ scalings, ord="nuc")
    inverse = np.linalg.inv(within)
    logits = np.array(
        [
            [
                np.log((labels == name).mean()) - (row - mean) @ inverse @ (row - mean) / 2
                for name, mean in zip(names, means, strict=True)
            ]
            for row in points
        ]
    )
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    spread = np.log(sum(np.linalg.norm(probs[labels == name], ord="nuc") for name in names))
    return geometry, probs[np.arange(len(labels)), index].mean(), spread


def zoo_of(problem):
    noise = np.random.default_rng(5).normal(size=problem.features.shape)
    return {"own": problem.features, "other": problem.reference_features, "noise": noise}


def test_equals_the_terms_computed_with_dense_matrices(problem):
    zoo = zoo_of(problem)
    terms = np.array([naive_terms(features, problem.labels) for features in zoo.values()])
    low, high = terms.min(axis=0), terms.max(axis=0)
    normalised = (terms - low) / (high - low)
    expected = dict(zip(zoo, normalised[:, 0] + normalised[:, 1] - normalised[:, 2], strict=True))
    assert ncti(zoo, problem.labels) == pytest.approx(expected, abs=1e-8, rel=1e-8)


def test_scale_shift_and_rotation_of_one_source_do_not_matter(problem):
    zoo = zoo_of(problem)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(problem.features.shape[1],) * 2))[0]
    turned = zoo | {"own": zoo["own"] @ rotation * 7e-3 + 2}
    assert ncti(turned, problem.labels) == pytest.approx(ncti(zoo, problem.labels), abs=1e-8)


def test_more_than_64_tied_components_all_stay():
    # One-hot features of 100 classes vary equally in 99 directions: any 64 of them would be a choice by rounding.
    labels = np.arange(200) % 100
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(100, 100)))[0]
    zoo = {"collapsed": np.eye(100)[labels], "noise": generator.normal(size=(200, 100))}
    turned = zoo | {"collapsed": zoo["collapsed"] @ rotation}
    scores = ncti(zoo, labels)
    assert ncti(turned, labels) == pytest.approx(scores, abs=1e-8)
    # Confident probabilities have the larger nuclear norm, so that the third term alone prefers the noise.
    assert scores == {"collapsed": pytest.approx(1.0), "noise": pytest.approx(0.0)}


def test_order_of_quality():
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 6
    centres, noise = generator.normal(size=(6, 40)), generator.normal(size=(120, 40))
    scores = ncti({str(signal): signal * centres[labels] + noise for signal in (0.0, 0.3, 0.6, 1.2)}, labels)
    assert list(scores.values()) == sorted(scores.values())
    assert -1 <= scores["0.0"] < scores["0.3"] < scores["0.6"] < scores["1.2"] <= 2


def test_without_differences_all_score_zero(problem):
    assert ncti({"alone": problem.features}, problem.labels) == {"alone": 0.0}
    order = np.random.default_rng(0).permutation(problem.features.shape[1])
    twins = {"one": problem.features, "two": problem.features[:, order]}  # equal but for rounding
    assert ncti(twins, problem.labels) == {"one": 0.0, "two": 0.0}


def test_class_means_that_coincide_span_nothing():
    # Every image is in both classes: no direction separates them, whatever rounding says.
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    once = generator.normal(size=(30, 8))
    features = np.empty((60, 8))
    features[0::2], features[1::2] = once, generator.permutation(once)
    scores = ncti({"same": features, "apart": features + labels[:, None]}, labels)
    assert scores["same"] < scores["apart"]
    order = generator.permutation(60)
    again = ncti({"same": features[order], "apart": (features + labels[:, None])[order]}, labels[order])
    assert again == pytest.approx(scores, abs=1e-8)


def test_undefined_inputs_are_named(problem_of):
    problem = problem_of(3)
    zoo = {"fine": problem.features, "flat": np.ones((60, 4))}
    with pytest.raises(SimilarityError, match=r"^ncti: source 'flat': all 60 rows of features are equal") as caught:
        ncti(zoo, problem.labels)
    assert caught.value.source == "flat"
    with pytest.raises(SimilarityError, match=r"^ncti: source 'short': 59 rows of features but 60 labels"):
        ncti({"fine": problem.features, "short": problem.features[1:]}, problem.labels)
    with pytest.raises(SimilarityError, match=r"^ncti: needs images of at least 2 classes") as caught:
        ncti(zoo, np.zeros(60, dtype=int))
    assert caught.value.source is None
    with pytest.raises(SimilarityError, match=r"^ncti: needs the features of at least one source"):
        ncti({}, problem.labels)
