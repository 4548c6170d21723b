import numpy as np
import pytest
from scipy.stats import entropy

from potstill.similarity import nce


def naive_nce(probs, labels):
    """-H(Y | Z) = H(Z) - H(Y, Z), entropies by scipy."""
    pairs = list(zip(probs.argmax(axis=1).tolist(), labels.tolist(), strict=True))
    together = entropy(np.unique(np.array(pairs), axis=0, return_counts=True)[1])
    return entropy(np.unique(probs.argmax(axis=1), return_counts=True)[1]) - together


def test_equals_the_entropies(problem):
    reference = naive_nce(problem.probs, problem.labels)
    assert nce(problem.probs, problem.labels) == pytest.approx(reference, abs=1e-8, rel=1e-8)


def test_known_values():
    labels = np.array([0, 0, 1, 1, 1, 2])
    assert nce(np.eye(3)[labels], labels) == 0.0
    shares = np.array([2, 3, 1]) / 6
    assert nce(np.full((6, 4), 0.25), labels) == pytest.approx(np.sum(shares * np.log(shares)))
