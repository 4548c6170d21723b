import itertools

import numpy as np
import pytest

from potstill.errors import SimilarityError
from potstill.similarity import cka


def naive_hsic(first, second):
    """Song et al. 2012, equation 4, with kernel matrices whose diagonal is zero."""
    count, one = len(first), np.ones(len(first))
    kernel, other = first @ first.T, second @ second.T
    np.fill_diagonal(kernel, 0)
    np.fill_diagonal(other, 0)
    total = np.trace(kernel @ other)
    total += (one @ kernel @ one) * (one @ other @ one) / ((count - 1) * (count - 2))
    total -= 2 / (count - 2) * (one @ kernel @ other @ one)
    return total / (count * (count - 3))


def naive_cka(first, second):
    return naive_hsic(first, second) / np.sqrt(naive_hsic(first, first) * naive_hsic(second, second))


def one_hot(labels):
    return (labels[:, None] == np.unique(labels)).astype(float)


def test_equals_the_kernel_form(problem):
    reference = naive_cka(problem.features, one_hot(problem.labels))
    assert cka(problem.features, problem.labels) == pytest.approx(reference, abs=1e-8, rel=1e-8)


def test_reference_features_equal_the_kernel_form(problem):
    reference = naive_cka(problem.features, problem.probs)
    score = cka(problem.features, reference_features=problem.probs)
    assert score == pytest.approx(reference, abs=1e-8, rel=1e-8)
    assert cka(problem.probs, reference_features=problem.features) == pytest.approx(score, abs=1e-9)


def test_hsic_estimate_is_unbiased():
    # Over all subsets of 5 of 7 images the estimates average to the estimate on all 7 (a U-statistic).
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(7, 3)), generator.normal(size=(7, 2))
    subsets = [naive_hsic(first[list(rows)], second[list(rows)]) for rows in itertools.combinations(range(7), 5)]
    assert np.mean(subsets) == pytest.approx(naive_hsic(first, second))


def test_noise_scores_zero_when_images_are_few():
    labels = np.arange(100) % 5
    scores = [cka(np.random.default_rng(seed).normal(size=(100, 1000)), labels) for seed in range(30)]
    assert abs(np.mean(scores)) < 0.01  # the biased estimate: about 0.9


def test_scale_shift_and_rotation_do_not_matter():
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(40, 6)), np.arange(40) % 3
    rotation = np.linalg.qr(generator.normal(size=(6, 6)))[0]
    assert cka(features @ rotation * 7 + 100, labels) == pytest.approx(cka(features, labels), abs=1e-9)
    assert cka(features, reference_features=features @ rotation) == pytest.approx(1.0)
    assert cka(one_hot(labels), labels) == pytest.approx(1.0)


def test_undefined_inputs_are_named():
    features = np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises(SimilarityError, match="either labels or reference_features"):
        cka(features)
    with pytest.raises(SimilarityError, match="either labels or reference_features"):
        cka(features, [0, 0, 0, 1, 1, 1], reference_features=features)
    with pytest.raises(SimilarityError, match="labels or reference features hold no similarity"):
        cka(features, np.arange(6))
    with pytest.raises(SimilarityError, match="at least 4"):
        cka(features[:3], [0, 0, 1])
    with pytest.raises(SimilarityError, match="at least 4"):
        cka(features[:3], reference_features=features[:3])
    with pytest.raises(SimilarityError, match="6 rows of features are compared with 5"):
        cka(features, [0, 0, 1, 1, 1])
