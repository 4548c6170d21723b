"""The ports that benchmarks/similarity.py measures against give the numbers of independent formulas, flaws included."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from potstill.similarity import cka, hscore, knn, logme, parc

PORTS = Path(__file__).resolve().parents[2] / "benchmarks" / "similarity_ports"


def load_port(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"similarity_port_{name}", PORTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ports = {path.stem: load_port(path.stem) for path in PORTS.glob("*.py")}


def problem(images: int, dimensions: int, classes: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(images) % classes)
    centres = generator.normal(size=(classes, dimensions))
    return centres[labels] + 2 * generator.normal(size=(images, dimensions)), labels


@pytest.mark.parametrize("classes", [4, 8, 64])
def test_parc_agrees_where_one_hot_rows_correlate_without_rounding(classes: int) -> None:
    # With a power of two of balanced classes all correlations of different classes round to one number.
    features, labels = problem(256, 50, classes)
    assert ports["parc"].parc(features, labels) == pytest.approx(parc(features, labels), abs=1e-9)


def test_parc_depends_on_the_numbering_of_37_classes() -> None:
    features, labels = problem(500, 40, 37)
    numberings = [np.random.default_rng(seed).permutation(37)[labels] for seed in range(4)]
    published = [ports["parc"].parc(features, renamed) for renamed in numberings]
    exact = [parc(features, renamed) for renamed in numberings]
    assert np.ptp(exact) < 1e-9
    assert max(abs(value - exact[0]) for value in published) > 0.01


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_knn_equals_scikit_learn(distance: str) -> None:
    features, labels = problem(120, 30, 5)
    classifier = KNeighborsClassifier(1, metric=distance, algorithm="brute")
    reference = cross_val_score(classifier, features, labels, cv=LeaveOneOut()).mean()
    assert ports["knn"].knn(features, labels, distance=distance) == pytest.approx(reference, abs=1e-12)


def test_knn_takes_one_of_two_copies_for_the_image_itself() -> None:
    # Every image is there twice, with two labels, so the nearest other image is always wrong.
    features = np.repeat(np.random.default_rng(0).normal(size=(50, 20)), 2, axis=0)
    labels = np.arange(100) % 2
    assert knn(features, labels) == 0.0
    assert ports["knn"].knn(features, labels, distance="sqeuclidean") > 0.2


def test_biased_cka_of_noise_is_high_when_images_are_few() -> None:
    # Independent Gaussian features of 500 images in 2,048 dimensions: the expectation is near 2048 / (2048 + 500).
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 500, 2048))
    assert ports["cka"].biased_cka(first, second) == pytest.approx(0.804, abs=0.002)
    assert abs(cka(first, reference_features=second)) < 0.01


def test_biased_cka_of_itself_is_one() -> None:
    features, _ = problem(40, 60, 3)
    assert ports["cka"].biased_cka(features, 3 * features + 1) == pytest.approx(1.0)


@pytest.mark.parametrize(("images", "dimensions"), [(40, 90), (200, 12)])
def test_hscore_is_ours_with_another_denominator(images: int, dimensions: int) -> None:
    features, labels = problem(images, dimensions, 4)
    expected = hscore(features, labels) * images / (images - 1)
    assert ports["hscore"].hscore(features, labels) == pytest.approx(expected, rel=1e-8)
    # The same from class sums: trace(inverse covariance, between) = sum of n_c mean' inverse mean / (N - 1).
    estimate = LedoitWolf().fit(features)
    inverse = np.linalg.inv(estimate.covariance_)
    centred = features - features.mean(axis=0)
    means = [centred[labels == label].mean(axis=0) for label in labels]
    trace = sum(mean @ inverse @ mean for mean in means) * (1 - estimate.shrinkage_) / (images - 1)
    assert ports["hscore"].hscore(features, labels) == pytest.approx(trace, rel=1e-8)


def test_transrate_equals_the_product_of_eigenvalues() -> None:
    features, labels = problem(60, 25, 3)
    centred = features - features.mean(axis=0)

    def rate(rows: np.ndarray) -> float:
        eigenvalues = np.linalg.eigvalsh(rows @ rows.T)  # from the side of images: no matrix of the port's size
        return 0.5 * np.log1p(np.maximum(eigenvalues, 0) / len(rows) / 1e-4).sum()

    expected = rate(centred) - np.mean([rate(centred[labels == label]) for label in range(3)])
    assert ports["transrate"].transrate(features, labels) == pytest.approx(expected, rel=1e-9)


def best_dense_evidence(features: np.ndarray, target: np.ndarray) -> float:
    """Largest log N(y; 0, 1 / beta + F F' / alpha) / N on a fine grid of the ratio, with the best beta for each."""
    found = []
    for ratio in np.exp(np.linspace(-6, 8, 141)):
        covariance = np.eye(len(target)) + features @ features.T / ratio
        beta = len(target) / (target @ np.linalg.solve(covariance, target))
        density = multivariate_normal(np.zeros(len(target)), covariance / beta)
        found.append(density.logpdf(target) / len(target))
    return max(found)


def test_logme_equals_the_dense_evidence_where_all_directions_count() -> None:
    features, labels = problem(60, 90, 3)
    dense = np.mean([best_dense_evidence(features, (labels == label) * 1.0) for label in range(3)])
    assert ports["logme"].logme_fixed_point(features, labels, padded=True) == pytest.approx(dense, abs=2e-3)
    assert ports["logme"].logme_icml(features, labels) == pytest.approx(dense, abs=2e-3)
    assert logme(features, labels) == pytest.approx(dense, abs=1e-3)


def test_logme_as_published_is_wrong_for_few_images() -> None:
    features, labels = problem(60, 90, 3)
    excess = ports["logme"].logme_fixed_point(features, labels) - logme(features, labels)
    assert excess > 0.1
    features, labels = problem(90, 20, 3)
    many = ports["logme"].logme_fixed_point(features, labels)
    assert many == ports["logme"].logme_fixed_point(features, labels, padded=True)
    assert many == pytest.approx(logme(features, labels), abs=1e-3)
