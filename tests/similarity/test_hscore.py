import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from potstill.similarity import hscore


def naive_hscore(features, labels):
    estimate = LedoitWolf().fit(features)
    means = np.stack([features[labels == name].mean(axis=0) for name in labels])
    between = np.cov(means, rowvar=False, ddof=0)
    return np.trace(np.linalg.inv(estimate.covariance_) @ ((1 - estimate.shrinkage_) * between))


def test_equals_the_formula_with_scikit_learns_shrinkage(problem):
    reference = naive_hscore(problem.features, problem.labels)
    assert hscore(problem.features, problem.labels) == pytest.approx(reference, abs=1e-8, rel=1e-8)


def test_separated_classes_approach_the_upper_bound():
    labels = np.arange(400) % 4
    features = 100 * np.eye(4)[labels] + np.random.default_rng(0).normal(size=(400, 4))
    assert 2.9 < hscore(features, labels) < 3.0


def test_nothing_to_shrink():
    # Two opposite points: Ledoit-Wolf does not shrink, and the covariance has rank one. All variance is between.
    labels = np.arange(10) % 2
    assert hscore(np.outer(2.0 * labels - 1, [1.0, 2.0, 3.0]), labels) == pytest.approx(1.0, abs=1e-6)


def test_pure_noise_in_one_dimension():
    # One dimension: the score is between-class variance over variance.
    features, labels = np.array([[0.0], [1.0], [2.0], [5.0]]), [0, 0, 1, 1]
    between = np.var([0.5, 0.5, 3.5, 3.5])
    assert hscore(features, labels) == pytest.approx(between / np.var(features))
