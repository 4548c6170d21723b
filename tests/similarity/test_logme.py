import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from potstill.similarity import logme


def dense_evidence(features, target, alpha, beta):
    """log p(y | F, alpha, beta) / N as the density of N numbers (You et al. 2021, equation 2, before any algebra)."""
    covariance = np.eye(len(target)) / beta + features @ features.T / alpha
    return multivariate_normal(np.zeros(len(target)), covariance).logpdf(target) / len(target)


def naive_logme(features, labels):
    """Dense evidence, with beta in closed form and the ratio by a fine grid and a bounded search around its best."""
    scores = []
    for name in np.unique(labels):
        target = (labels == name).astype(float)
        scale = np.linalg.eigvalsh(features @ features.T)
        scale = scale[scale > scale[-1] * 1e-13].mean()

        def misfit(at, target=target, scale=scale):
            covariance = np.eye(len(target)) + features @ features.T / (scale * np.exp(at))
            beta = len(target) / (target @ np.linalg.solve(covariance, target))
            log_determinant = np.linalg.slogdet(covariance / beta).logabsdet
            return 0.5 * (np.log(2 * np.pi) + 1 + log_determinant / len(target))

        grid = np.arange(np.log(1e-8), np.log(1e12), 0.5)
        best = grid[np.argmin([misfit(at) for at in grid])]
        found = minimize_scalar(misfit, bounds=(best - 0.6, best + 0.6), options={"xatol": 1e-9})
        scores.append(-found.fun)
    return np.mean(scores)


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_dense_maximum(problem_of, seed):
    problem = problem_of(seed)
    labels = np.where(np.isin(problem.labels, np.unique(problem.labels)[:4]), problem.labels, 999)  # 5 of 37: speed
    reference = naive_logme(problem.features, labels)
    assert logme(problem.features, labels) == pytest.approx(reference, abs=1e-8, rel=1e-8)


@pytest.mark.parametrize(("images", "dimensions"), [(60, 10), (60, 200)])
def test_equals_the_fixed_point_of_the_paper(images, dimensions):
    generator = np.random.default_rng(0)
    labels = np.arange(images) % 3
    features = generator.normal(size=(images, dimensions)) + 0.5 * generator.normal(size=(3, dimensions))[labels]
    scores = []
    for name in range(3):
        target = (labels == name).astype(float)
        alpha = beta = 1.0
        for _ in range(20_000):  # algorithm 1
            inverse = np.linalg.inv(alpha * np.eye(images) + beta * features @ features.T)
            mean = beta * features.T @ inverse @ target
            effective = np.trace(beta * inverse @ features @ features.T)
            before, alpha = alpha, effective / (mean @ mean)
            beta = (images - effective) / np.sum((target - features @ mean) ** 2)
            if abs(alpha / before - 1) < 1e-12:
                break
        scores.append(dense_evidence(features, target, alpha, beta))
    assert logme(features, labels) == pytest.approx(np.mean(scores), abs=1e-8)


def test_scale_of_the_features_does_not_matter(problem):
    score = logme(problem.features, problem.labels)
    assert logme(problem.features * 1e-3, problem.labels) == pytest.approx(score, abs=1e-9)


def test_features_that_fit_exactly_have_a_finite_score():
    labels = np.arange(30) % 3
    exact = logme(np.eye(3)[labels], labels)
    noisy = logme(np.eye(3)[labels] + 0.1 * np.random.default_rng(0).normal(size=(30, 3)), labels)
    assert np.isfinite(exact)
    assert exact > noisy
