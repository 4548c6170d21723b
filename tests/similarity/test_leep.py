import numpy as np
import pytest

from potstill.errors import SimilarityError
from potstill.similarity import leep


def naive_leep(probs, labels):
    """Equation 2 of the paper, loop by loop."""
    joint = {}
    for row, name in zip(probs, labels, strict=True):
        for source_class, prob in enumerate(row):
            joint[name, source_class] = joint.get((name, source_class), 0.0) + prob / len(labels)
    marginal = probs.mean(axis=0)
    total = 0.0
    for row, name in zip(probs, labels, strict=True):
        likelihood = 0.0
        for source_class, prob in enumerate(row):
            if marginal[source_class] > 0:
                likelihood += joint[name, source_class] / marginal[source_class] * prob
        total += np.log(likelihood)
    return total / len(labels)


def test_equals_the_paper(problem):
    reference = naive_leep(problem.probs, problem.labels)
    assert leep(problem.probs, problem.labels) == pytest.approx(reference, abs=1e-8, rel=1e-8)


def test_a_class_that_is_never_predicted_changes_nothing(problem):
    padded = np.concatenate([problem.probs, np.zeros((len(problem.probs), 3))], axis=1)
    assert leep(padded, problem.labels) == pytest.approx(leep(problem.probs, problem.labels), abs=1e-12)


def test_known_values():
    labels = np.array([0, 0, 1, 1, 1, 2])
    assert leep(np.eye(3)[labels], labels) == 0.0
    shares = np.array([2, 3, 1]) / 6
    assert leep(np.full((6, 4), 0.25), labels) == pytest.approx(np.sum(shares * np.log(shares)))


@pytest.mark.parametrize("values", [[[2.0, -1.0], [0.5, 0.5]], [[3.0, 1.0], [0.5, 0.5]]])
def test_logits_are_refused(values):
    with pytest.raises(SimilarityError, match="apply softmax to logits first"):
        leep(values, [0, 1])
