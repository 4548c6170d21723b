"""Multi-label and regression targets of the metrics whose papers allow them."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, spearmanr

from potstill.errors import SimilarityError
from potstill.similarity import SIMILARITIES, cka, logme, parc

WITH_TARGETS = {"parc": parc, "cka": cka, "logme": logme}


def several_labels(problem, kinds=5):
    """0/1 labels `(N, kinds)` that follow the features; every image has at least one and not all."""
    generator = np.random.default_rng(4)
    scores = problem.features @ generator.normal(size=(problem.features.shape[1], kinds))
    labels = (scores > np.median(scores, axis=0)).astype(np.int64)
    labels[np.arange(len(labels)), scores.argmax(axis=1)] = 1
    labels[np.arange(len(labels)), scores.argmin(axis=1)] = 0
    return labels


@pytest.mark.parametrize("name", WITH_TARGETS)
def test_one_label_an_image_is_the_same_in_both_forms(name, problem):
    classes, index = np.unique(problem.labels, return_inverse=True)
    one_hot = np.eye(len(classes), dtype=np.int64)[index]
    expected = WITH_TARGETS[name](problem.features, problem.labels)
    assert WITH_TARGETS[name](problem.features, one_hot) == pytest.approx(expected, abs=1e-9)
    assert WITH_TARGETS[name](problem.features, one_hot.astype(bool)) == pytest.approx(expected, abs=1e-9)


def test_multi_label_parc_is_spearman_over_all_pairs(problem):
    labels = several_labels(problem)
    scored = (problem.features - problem.features.mean(axis=0)) / problem.features.std(axis=0)
    upper = np.triu_indices(len(labels), k=1)
    # Rounding of the naive correlation would break ties, so it is rounded further.
    label_distance = np.round(1 - np.corrcoef(labels), 9)
    expected = spearmanr((1 - np.corrcoef(scored))[upper], label_distance[upper]).statistic
    assert parc(problem.features, labels) == pytest.approx(expected, abs=1e-8)


def naive_hsic(first, second):
    count = len(first)
    first, second = first - np.diag(np.diag(first)), second - np.diag(np.diag(second))
    total = first.sum() * second.sum() / ((count - 1) * (count - 2))
    return (np.trace(first @ second) + total - 2 / (count - 2) * (first @ second).sum()) / (count * (count - 3))


@pytest.mark.parametrize("kind", ["multi-label", "regression", "one number"])
def test_cka_aligns_with_any_matrix_of_labels(problem, kind):
    labels = several_labels(problem)
    if kind != "multi-label":
        labels = labels + np.random.default_rng(0).normal(size=labels.shape)
    if kind == "one number":
        labels = labels[:, 0]
    features = problem.features - problem.features.mean(axis=0)
    columns = labels.reshape(len(labels), -1) - labels.reshape(len(labels), -1).mean(axis=0)
    first, second = features @ features.T, columns @ columns.T
    expected = naive_hsic(first, second) / np.sqrt(naive_hsic(first, first) * naive_hsic(second, second))
    assert cka(problem.features, labels) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("kind", ["multi-label", "regression"])
def test_logme_is_the_largest_dense_evidence(problem_of, kind):
    problem = problem_of(3)
    labels = several_labels(problem)
    if kind == "regression":
        labels = labels[:, :2] + np.random.default_rng(0).normal(size=(len(labels), 2))
    features = problem.features / np.abs(problem.features).max()
    kernel, count, evidences = features @ features.T, len(features), []
    for column in labels.T.astype(float):
        best = -np.inf
        for log_ratio in np.linspace(-12, 12, 4001):
            covariance = np.eye(count) + kernel / np.exp(log_ratio)
            scale = column @ np.linalg.solve(covariance, column) / count  # 1 / beta at its maximum
            log_density = -0.5 * (count * np.log(2 * np.pi * scale) + np.linalg.slogdet(covariance)[1] + count)
            if log_density > best:
                best, found = log_density, covariance * scale
        assert best == pytest.approx(multivariate_normal(np.zeros(count), found).logpdf(column))
        evidences.append(best / count)
    assert logme(problem.features, labels) == pytest.approx(np.mean(evidences), abs=1e-5)


@pytest.mark.parametrize("name", ["cka", "logme"])
def test_order_of_columns_and_images_changes_nothing(name, problem_of):
    problem = problem_of(3)
    labels = several_labels(problem) + np.random.default_rng(0).normal(size=(len(problem.labels), 5))
    order = np.random.default_rng(1).permutation(len(labels))
    expected = WITH_TARGETS[name](problem.features, labels)
    assert WITH_TARGETS[name](problem.features[order], labels[order][:, ::-1]) == pytest.approx(expected, abs=1e-9)


def test_targets_that_mean_nothing_are_named(problem_of):
    problem = problem_of(3)
    labels = several_labels(problem)
    with pytest.raises(SimilarityError, match=r"parc: labels must be integer classes .* use cka or logme"):
        parc(problem.features, labels[:, 0].astype(float))
    bare = labels.copy()
    bare[[3, 5]] = 0
    with pytest.raises(SimilarityError, match=r"parc: 2 of 60 images \(first: row 3\) have no label or all"):
        parc(problem.features, bare)
    assert np.isfinite(cka(problem.features, bare))
    constant = labels.copy()
    constant[:, 1] = 1
    with pytest.raises(SimilarityError, match=r"logme: .*column"):
        logme(problem.features, constant)
    with pytest.raises(SimilarityError, match="0 or 1"):
        cka(problem.features, labels * 2)


@pytest.mark.parametrize("name", sorted(set(SIMILARITIES) - set(WITH_TARGETS) - {"rsa"}))
def test_other_metrics_take_classes_alone(name, problem_of):
    problem = problem_of(3)
    values = {need: getattr(problem, need) for need in SIMILARITIES[name].needs}
    for labels in (several_labels(problem), problem.labels.astype(float)):
        arguments = [labels if need == "labels" else values[need] for need in SIMILARITIES[name].needs]
        with pytest.raises(SimilarityError, match=rf"{name}: .*labels"):
            SIMILARITIES[name].function(*arguments)


@pytest.mark.parametrize("unit", [1e-170, 1e-3, 1e160])
def test_the_unit_of_a_regression(unit, problem_of):
    problem = problem_of(3)
    labels = problem.features[:, :2] + np.random.default_rng(0).normal(size=(60, 2))
    assert cka(problem.features, labels * unit) == pytest.approx(cka(problem.features, labels), abs=1e-9)
    expected = logme(problem.features, labels) - np.log(unit)  # a density in another unit
    assert logme(problem.features, labels * unit) == pytest.approx(expected, rel=1e-9)
