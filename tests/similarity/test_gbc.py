import numpy as np
import pytest

from potstill.errors import SimilarityError
from potstill.similarity import gbc


def naive_distance(first, second):
    """Bhattacharyya distance of two Gaussians (mean, variances), with full covariance matrices."""
    (mean, variances), (other_mean, other_variances) = first, second
    both = np.diag((variances + other_variances) / 2)
    apart = (mean - other_mean) @ np.linalg.inv(both) @ (mean - other_mean) / 8
    logarithms = np.linalg.slogdet(both)[1] - (np.log(variances).sum() + np.log(other_variances).sum()) / 2
    return apart + logarithms / 2


def naive_gbc(features, labels, covariance):
    centred = features - features.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    points = centred @ directions[: min(64, (lengths > 1e-9 * lengths[0]).sum())].T
    classes = [points[labels == label] for label in np.unique(labels)]
    residuals = [rows - rows.mean(axis=0) for rows in classes]
    pooled = sum((each**2).sum(axis=0) for each in residuals) / sum(len(each) - 1 for each in residuals)
    gaussians = []
    for rows in classes:
        variances = rows.var(axis=0, ddof=1) if len(rows) > 1 else pooled
        if covariance == "spherical":
            variances = np.full_like(variances, variances.mean())
        gaussians.append((rows.mean(axis=0), np.maximum(variances, 1e-4 * (points**2).mean())))
    pairs = [(i, j) for i in range(len(classes)) for j in range(len(classes)) if i != j]
    return -sum(np.exp(-naive_distance(gaussians[i], gaussians[j])) for i, j in pairs)


@pytest.mark.parametrize("covariance", ["spherical", "diagonal"])
def test_equals_the_formula(problem, covariance):
    reference = naive_gbc(problem.features, problem.labels, covariance)
    found = gbc(problem.features, problem.labels, covariance=covariance)
    assert found == pytest.approx(reference, abs=1e-8, rel=1e-8)


@pytest.mark.parametrize("covariance", ["spherical", "diagonal"])
def test_rotation_scale_and_shift_change_nothing(problem, covariance):
    expected = gbc(problem.features, problem.labels, covariance=covariance)
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(problem.features.shape[1],) * 2))[0]
    moved = 3 * problem.features @ rotation + generator.normal(size=problem.features.shape[1])
    assert gbc(moved, problem.labels, covariance=covariance) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_two_gaussians_by_hand():
    # Means -2 and 2, both with variance 2: the distance is 16 / 2 / 8 = 1, counted in both directions.
    assert gbc([[-3.0], [-1.0], [1.0], [3.0]], [0, 0, 1, 1]) == pytest.approx(-2 * np.exp(-1))


def test_the_same_gaussian_twice_overlaps_wholly():
    rows = np.random.default_rng(0).normal(size=(6, 3))
    assert gbc(np.concatenate([rows, rows]), np.repeat([0, 1], 6)) == pytest.approx(-2)


def test_undefined_inputs_are_named():
    features = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(SimilarityError, match="gbc: needs at least one class with 2 images"):
        gbc(features, np.arange(4))
    with pytest.raises(SimilarityError, match="covariance must be 'spherical' or 'diagonal', got 'full'"):
        gbc(features, [0, 0, 1, 1], covariance="full")
