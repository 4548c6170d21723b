import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from potstill.similarity import _nleep, leep, nleep


def naive_components(features):
    """As few principal components as hold 80 % of the variance."""
    centred = features - features.mean(axis=0)
    variances, vectors = np.linalg.eigh(np.cov(centred, rowvar=False))
    kept, energy = [], 0.0
    for column in np.argsort(variances)[::-1]:
        if energy >= 0.8 * variances.sum():
            break
        kept.append(centred @ vectors[:, column])
        energy += variances[column]
    return np.stack(kept, axis=1)


def naive_nleep(features, labels):
    points = naive_components(features)
    names = np.unique(labels)
    posteriors = (labels[:, None] == names).astype(float)
    gained, before = np.inf, -np.inf
    for _ in range(100):
        shares = posteriors.mean(axis=0)
        means = [posteriors[:, k] @ points / posteriors[:, k].sum() for k in range(len(names))]
        spread = sum(
            posteriors[n, k] * np.sum((points[n] - means[k]) ** 2)
            for n in range(len(points))
            for k in range(len(names))
        )
        variance = spread / points.size
        joint = np.stack(
            [
                np.log(shares[k]) + multivariate_normal(means[k], variance * np.eye(points.shape[1])).logpdf(points)
                for k in range(len(names))
            ],
            axis=1,
        )
        largest = joint.max(axis=1, keepdims=True)
        evidence = largest + np.log(np.exp(joint - largest).sum(axis=1, keepdims=True))
        posteriors = np.exp(joint - evidence)
        gained, before = evidence.mean() - before, evidence.mean()
        if gained < 1e-3:
            break
    total = 0.0
    for row, label in zip(posteriors, labels, strict=True):
        total += np.log(
            sum(row[k] * posteriors[labels == label, k].sum() / posteriors[:, k].sum() for k in range(len(row)))
        )
    return total / len(labels)


def test_equals_the_formula_in_loops(problem):
    reference = naive_nleep(problem.features, problem.labels)
    assert nleep(problem.features, problem.labels) == pytest.approx(reference, abs=1e-8, rel=1e-8)


def test_equals_scikit_learns_mixture_at_the_fixed_point(monkeypatch):
    # In one dimension a variance for all directions and components is scikit-learn's tied covariance.
    monkeypatch.setattr(_nleep, "LEAST_GAIN", 1e-13)
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = 2.0 * labels[:, None] + generator.normal(size=(90, 1))
    means = np.array([features[labels == name].mean(axis=0) for name in range(3)])
    within = np.mean((features - means[labels]) ** 2)
    mixture = GaussianMixture(
        3,
        covariance_type="tied",
        reg_covar=0.0,
        tol=1e-13,
        max_iter=10_000,
        weights_init=np.full(3, 1 / 3),
        means_init=means,
        precisions_init=np.array([[1 / within]]),
    )
    monkeypatch.setattr(_nleep, "MOST_STEPS", 10_000)
    expected = leep(mixture.fit(features).predict_proba(features), labels)
    assert nleep(features, labels) == pytest.approx(expected, abs=1e-5)


def test_scale_shift_and_rotation_do_not_matter(problem):
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(problem.features.shape[1],) * 2))[0]
    score = nleep(problem.features, problem.labels)
    assert nleep(problem.features @ rotation * 7e-3 + 2, problem.labels) == pytest.approx(score, abs=1e-9)


def test_known_values():
    labels = np.array([0, 0, 1, 1, 1, 2])
    assert nleep(np.eye(3)[labels], labels) == pytest.approx(0.0, abs=1e-12)
    # Two classes with one mean are one component: nothing is known beyond their shares.
    features = np.array([[1.0], [-1.0], [2.0], [-2.0]])
    assert nleep(features, [0, 0, 1, 1]) == pytest.approx(-np.log(2), abs=1e-12)


@pytest.mark.parametrize("labels_per_class", [2, 5, 20])
def test_few_labels_still_tell_good_from_bad(labels_per_class):
    scores = {0.0: [], 0.3: [], 0.8: []}
    for seed in range(5):
        generator = np.random.default_rng(seed)
        labels = np.repeat(np.arange(10), labels_per_class)
        noise = generator.normal(size=(len(labels), 200)) * generator.uniform(0.2, 1, 200)
        centres = np.zeros((10, 200))
        centres[:, :20] = generator.normal(size=(10, 20))
        for signal, found in scores.items():
            found.append(nleep(noise + 1.5 * signal * centres[labels], labels))
    noise, weak, strong = (np.mean(found) for found in scores.values())
    assert noise + 0.01 < weak < strong
