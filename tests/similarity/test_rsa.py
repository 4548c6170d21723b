import numpy as np
import pytest
from scipy.stats import spearmanr

from potstill.errors import SimilarityError
from potstill.similarity import rsa


def naive_rsa(features, reference_features):
    distances = []
    for side in (features, reference_features):
        scored = (side - side.mean(axis=0)) / side.std(axis=0)
        distances.append((1 - np.corrcoef(scored))[np.triu_indices(len(side), k=1)])
    return spearmanr(*distances).statistic


def test_equals_spearman_over_all_pairs(problem):
    reference = naive_rsa(problem.features, problem.reference_features)
    assert rsa(problem.features, problem.reference_features) == pytest.approx(reference, abs=1e-8)


def test_documented_invariances(problem):
    expected = rsa(problem.features, problem.reference_features)
    generator = np.random.default_rng(0)
    scaled = problem.features * generator.uniform(0.1, 10, problem.features.shape[1]) + generator.normal()
    assert rsa(scaled, problem.reference_features) == pytest.approx(expected, abs=1e-9)
    assert rsa(problem.reference_features, problem.features) == pytest.approx(expected, abs=1e-9)
    assert rsa(problem.features, problem.features) == pytest.approx(1, abs=1e-12)


def test_ties_share_ranks():
    # Rows of two numbers correlate by +1 or -1 only.
    generator = np.random.default_rng(3)
    features, reference = generator.normal(size=(30, 2)), generator.normal(size=(30, 2))
    signs = []
    for side in (features, reference):
        sign = np.sign(np.diff((side - side.mean(axis=0)) / side.std(axis=0), axis=1))[:, 0]
        signs.append((sign[:, None] * sign)[np.triu_indices(30, k=1)])
    assert rsa(features, reference) == pytest.approx(spearmanr(*signs).statistic, abs=1e-12)


def test_undefined_inputs_are_named():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(6, 4))
    with pytest.raises(SimilarityError, match="rsa: needs at least 3 images, got 2"):
        rsa(features[:2], features[:2])
    with pytest.raises(SimilarityError, match=r"rsa: .* same z-scored value"):
        rsa(features, generator.normal(size=(6, 1)))
    with pytest.raises(SimilarityError, match="rsa: all pairs of images are equally similar"):
        rsa(np.eye(4), generator.normal(size=(4, 3)))
