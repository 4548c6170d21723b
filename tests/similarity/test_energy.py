import math

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from potstill.similarity import energy, free_energy


def naive_free_energy(features):
    root_mean_square = np.sqrt(np.mean(features**2))
    energies = []
    for row in features:
        energies.append(math.log(sum(math.exp(value / root_mean_square) for value in row) / len(row)))
    return np.mean(sorted(energies)[: len(energies) // 2])


def naive_separation(features, labels):
    """Mean probability of the true class, by densities of Gaussians with one shrunk covariance."""
    centred = features - features.mean(axis=0)
    rank = np.linalg.matrix_rank(centred)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    points = centred @ directions[:rank].T
    classes, index = np.unique(labels, return_inverse=True)
    means = np.stack([points[index == c].mean(axis=0) for c in range(len(classes))])
    within = sum((p - means[c])[:, None] * (p - means[c]) for p, c in zip(points, index, strict=True)) / len(points)
    total = np.trace(points.T @ points) / len(points)
    shrinkage = math.exp(-5 * np.linalg.eigvalsh(within)[-1] / total)
    covariance = (1 - shrinkage) * within
    covariance += max(shrinkage * np.trace(within), 1e-4 * total) / rank * np.eye(rank)
    inverse = np.linalg.inv(covariance)
    chances = []
    for point, c in zip(points, index, strict=True):
        logs = [-(point - m) @ inverse @ (point - m) / 2 + math.log((index == k).mean()) for k, m in enumerate(means)]
        chances.append(1 / sum(math.exp(log - logs[c]) for log in logs))
    return np.mean(chances)


def test_equals_the_formula(problem):
    reference = naive_free_energy(problem.features) + naive_separation(problem.features, problem.labels)
    assert energy(problem.features, problem.labels) == pytest.approx(reference, abs=1e-7)


def test_label_free_term(problem):
    assert free_energy(problem.features) == pytest.approx(naive_free_energy(problem.features), abs=1e-9)


def test_scale_and_order_of_dimensions_change_nothing(problem):
    expected = energy(problem.features, problem.labels)
    order = np.random.default_rng(0).permutation(problem.features.shape[1])
    assert energy(7 * problem.features[:, order], problem.labels) == pytest.approx(expected, abs=1e-8)


def test_sparse_responses_have_less_free_energy_than_even_ones():
    assert free_energy(np.eye(8)) > free_energy(np.ones((8, 8)) + 1e-6 * np.eye(8))


def test_separation_orders_sources_as_a_library_does():
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 4
    found, expected = [], []
    for signal in (0.2, 0.6, 1.2, 2.4):
        features = signal * np.eye(4, 6)[labels] + generator.normal(size=(200, 6))
        found.append(energy(features, labels) - free_energy(features))
        expected.append(LinearDiscriminantAnalysis().fit(features, labels).score(features, labels))
    assert np.argsort(found).tolist() == np.argsort(expected).tolist()
