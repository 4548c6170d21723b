import numpy as np
import pytest

from potstill.errors import SimilarityError
from potstill.similarity import transrate


def naive_rate(rows, epsilon):
    count, dimensions = rows.shape
    return np.linalg.slogdet(np.eye(dimensions) + rows.T @ rows / (count * epsilon))[1] / 2


def naive_transrate(features, labels, epsilon=1e-4):
    centred = features - features.mean(axis=0)
    classes = [centred[labels == label] for label in np.unique(labels)]
    of_class = sum(len(rows) / len(centred) * naive_rate(rows, epsilon) for rows in classes)
    return naive_rate(centred, epsilon) - of_class


@pytest.mark.parametrize("epsilon", [1e-4, 0.1])
def test_equals_the_formula(problem, epsilon):
    reference = naive_transrate(problem.features, problem.labels, epsilon)
    assert transrate(problem.features, problem.labels, epsilon=epsilon) == pytest.approx(reference, abs=1e-8, rel=1e-8)


def test_rotation_and_shift_change_nothing(problem):
    expected = transrate(problem.features, problem.labels)
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(problem.features.shape[1],) * 2))[0]
    moved = problem.features @ rotation + generator.normal(size=problem.features.shape[1])
    assert transrate(moved, problem.labels) == pytest.approx(expected, rel=1e-9)


def test_two_points_by_hand():
    # Centred rows are -1 and 1: the rate is 1/2 log(1 + 1 / epsilon) for all, and the same for each class.
    assert transrate([[0.0], [2.0]], [0, 1], epsilon=1.0) == pytest.approx(0, abs=1e-12)
    # Along two axes all rows have the rate log(1 + 1 / (2 epsilon)), each class 1/2 log(1 + 1 / epsilon).
    cross = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    assert transrate(cross, [0, 0, 1, 1], epsilon=1.0) == pytest.approx(np.log(1.5) - np.log(2) / 2)


def test_the_unit_of_features_is_that_of_epsilon(problem):
    expected = transrate(problem.features, problem.labels)
    assert transrate(10 * problem.features, problem.labels, epsilon=1e-2) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("unit", [100.0, 6e4, 1e8, 1e200])
def test_copies_of_images_in_a_large_unit_add_no_rounding(unit):
    # The Gram matrix of copies has zero eigenvalues, which come out at rounding level: large, once over epsilon.
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(20, 50)), np.arange(20) % 4
    copies, twice = unit * np.concatenate([features, features]), np.concatenate([labels, labels])
    once = transrate(unit * features, labels)
    assert transrate(copies, twice) == pytest.approx(once, rel=1e-9)
    order = generator.permutation(40)
    assert transrate(copies[order], twice[order]) == pytest.approx(once, rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan, np.inf])
def test_bad_epsilon_is_named(epsilon):
    with pytest.raises(SimilarityError, match="transrate: epsilon must be a positive number"):
        transrate([[0.0], [1.0]], [0, 1], epsilon=epsilon)
