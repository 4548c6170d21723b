import numpy as np
import pytest
from scipy.stats import spearmanr

from potstill.errors import SimilarityError
from potstill.similarity import parc


def naive_parc(features, labels):
    scored = (features - features.mean(axis=0)) / features.std(axis=0)
    distance = 1 - np.corrcoef(scored)
    label_distance = (labels[:, None] != labels[None, :]).astype(float)
    upper = np.triu_indices(len(labels), k=1)
    return spearmanr(distance[upper], label_distance[upper]).statistic


def test_equals_spearman_over_all_pairs(problem):
    reference = naive_parc(problem.features, problem.labels)
    assert parc(problem.features, problem.labels) == pytest.approx(reference, abs=1e-8, rel=1e-8)


def test_equals_the_auc_form(problem):
    scored = (problem.features - problem.features.mean(axis=0)) / problem.features.std(axis=0)
    upper = np.triu_indices(len(scored), k=1)
    correlation = np.corrcoef(scored)[upper]
    different = (problem.labels[:, None] != problem.labels[None, :])[upper]
    within, between = correlation[~different], correlation[different]
    auc = (between[:, None] < within[None, :]).mean()
    share = different.mean()
    # The variance of P untied ranks is (P^2 - 1) / 12; the formula of the docstring leaves the 1 out.
    expected = np.sqrt(3 * share * (1 - share)) * (2 * auc - 1) / np.sqrt(1 - 1 / len(correlation) ** 2)
    # With 3 dimensions z-scored rows lie on a circle, and ties are still improbable.
    assert parc(problem.features, problem.labels) == pytest.approx(expected, abs=1e-8)


def test_ties_of_two_dimensions_share_ranks():
    # Rows of two numbers correlate by +1 or -1 only; rounding must not break these ties.
    generator = np.random.default_rng(3)
    features, labels = generator.normal(size=(40, 2)), np.arange(40) % 3
    sign = np.sign(np.diff((features - features.mean(axis=0)) / features.std(axis=0), axis=1))[:, 0]
    upper = np.triu_indices(40, k=1)
    expected = spearmanr(-(sign[:, None] * sign)[upper], (labels[:, None] != labels)[upper]).statistic
    assert parc(features, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("classes", "ceiling"), [(10, 0.515), (37, 0.271)])
def test_ceiling_of_balanced_classes(classes, ceiling):
    labels = np.arange(500) % classes
    features = np.eye(classes)[labels] + 1e-3 * np.random.default_rng(0).normal(size=(500, classes))
    assert parc(features, labels) == pytest.approx(ceiling, abs=2e-3)


def test_undefined_inputs_are_named():
    generator = np.random.default_rng(0)
    with pytest.raises(SimilarityError, match="every class has one"):
        parc(generator.normal(size=(5, 4)), np.arange(5))
    with pytest.raises(SimilarityError, match="same z-scored value"):
        parc(generator.normal(size=(5, 1)), [0, 0, 1, 1, 1])
    with pytest.raises(SimilarityError, match="equally similar"):
        parc(np.eye(4), [0, 0, 1, 1])
