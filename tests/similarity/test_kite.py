import numpy as np
import pytest

from potstill.errors import SimilarityError
from potstill.similarity import kite


def naive_hsic(first, second):
    """Song et al. 2012, equation 4, written out."""
    count = len(first)
    first, second = first - np.diag(np.diag(first)), second - np.diag(np.diag(second))
    ones = np.ones(count)
    total = (ones @ first @ ones) * (ones @ second @ ones) / ((count - 1) * (count - 2))
    return (np.trace(first @ second) + total - 2 / (count - 2) * ones @ first @ second @ ones) / (count * (count - 3))


def naive_alignment(first, second):
    first, second = first @ first.T, second @ second.T
    return naive_hsic(first, second) / np.sqrt(naive_hsic(first, first) * naive_hsic(second, second))


def test_equals_the_ratio_of_alignments(problem):
    features = problem.features - problem.features.mean(axis=0)
    one_hot = np.eye(1001)[problem.labels + 500]
    reference = naive_alignment(features, one_hot) / naive_alignment(features, problem.random_features)
    found = kite(problem.features, problem.labels, problem.random_features)
    assert found == pytest.approx(reference, abs=1e-8, rel=1e-8)


def test_rotation_scale_and_shift_change_nothing(problem):
    expected = kite(problem.features, problem.labels, problem.random_features)
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(problem.features.shape[1],) * 2))[0]
    moved = 3 * problem.features @ rotation + generator.normal(size=problem.features.shape[1])
    assert kite(moved, problem.labels, 0.1 * problem.random_features + 5) == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_unrelated_network_and_wrong_rows_are_named():
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(40, 5)), np.arange(40) % 4
    orthogonal = np.linalg.qr(np.column_stack([np.ones(40), features, generator.normal(size=(40, 3))]))[0][:, -3:]
    with pytest.raises(
        SimilarityError, match=r"kite: the features have an alignment of .* with those of the untrained"
    ):
        kite(features, labels, orthogonal)
    with pytest.raises(SimilarityError, match=r"^kite: .*random_features"):
        kite(features, labels, np.full((40, 3), np.nan))
