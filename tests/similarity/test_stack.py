import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from potstill.errors import SimilarityError
from potstill.probes import held_out_logits
from potstill.similarity import stack


def naive_stack(features, labels):
    """The same objective, maximised by a general optimiser over softmax weights."""
    classes, index = np.unique(labels, return_inverse=True)
    judged = np.bincount(index)[index] > 1
    rows = np.arange(len(index))
    likelihoods = np.stack(
        [softmax(held_out_logits(each, index, len(classes)), axis=1)[rows, index][judged] for each in features.values()]
    )

    def loss(free):
        weights = softmax(free)
        return -np.log(weights @ likelihoods).sum() - np.log(weights).sum()

    found = minimize(loss, np.zeros(len(features)), method="BFGS", options={"gtol": 1e-9})
    return dict(zip(features, softmax(found.x), strict=True))


def sources_of(problem):
    generator = np.random.default_rng(7)
    return {
        "own": problem.features,
        "other": problem.reference_features,
        "noise": generator.normal(size=(len(problem.labels), 9)),
    }


def test_equals_a_general_optimiser(problem):
    found = stack(sources_of(problem), problem.labels)
    assert found == pytest.approx(naive_stack(sources_of(problem), problem.labels), abs=1e-5)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)


def test_stationary(problem):
    # At the optimum one more step of expectation-maximisation moves nothing.
    features = sources_of(problem)
    weights = np.array(list(stack(features, problem.labels).values()))
    index = np.unique(problem.labels, return_inverse=True)[1]
    rows = np.arange(len(index))
    likelihoods = np.stack(
        [softmax(held_out_logits(each, index, index.max() + 1), axis=1)[rows, index] for each in features.values()]
    )[:, np.bincount(index)[index] > 1]
    explained = weights[:, None] * likelihoods
    step = (explained / explained.sum(axis=0)).sum(axis=1) + 1
    np.testing.assert_allclose(step / step.sum(), weights, atol=1e-8)


def test_copies_share_their_credit(problem_of):
    problem = problem_of(3)
    sources = sources_of(problem)
    scores = stack(sources | {"copy": 5 * problem.features + 1}, problem.labels)
    assert scores["copy"] == pytest.approx(scores["own"], abs=1e-9)
    assert scores["copy"] + scores["own"] > stack(sources, problem.labels)["own"]


def test_sources_that_hardly_differ_share_their_credit():
    # Along such directions expectation-maximisation crawls; its steps are small long before it has arrived.
    generator = np.random.default_rng(0)
    labels = np.arange(3000) % 5
    base = 1.5 * np.eye(5)[labels] + generator.normal(size=(3000, 5))
    sources = {
        number: np.concatenate([base, 1e-3 * number * generator.normal(size=(3000, 3))], axis=1) for number in range(6)
    }
    weights = np.array(list(stack(sources, labels).values()))
    rows = np.arange(3000)
    likelihoods = np.stack(
        [softmax(held_out_logits(each, labels, 5), axis=1)[rows, labels] for each in sources.values()]
    )
    # At the optimum the gradient of the objective is the same for all sources, to what rounding leaves of it.
    gradient = (likelihoods / (weights @ likelihoods)).sum(axis=1) + 1 / weights
    np.testing.assert_allclose(gradient, gradient.mean(), rtol=1e-11)
    np.testing.assert_allclose(weights, 1 / 6, atol=0.01)


def test_a_source_alone_and_a_useless_one():
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 4
    good = 3 * np.eye(4)[labels] + generator.normal(size=(200, 4))
    assert stack({"good": good}, labels) == {"good": 1.0}
    scores = stack({"good": good, "noise": generator.normal(size=(200, 4))}, labels)
    assert scores["noise"] < 0.05


def test_undefined_inputs_are_named():
    features = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(SimilarityError, match="stack: needs at least one source"):
        stack({}, [0, 0, 1, 1])
    with pytest.raises(SimilarityError, match="stack: needs at least one class with 2 images"):
        stack({"a": features}, np.arange(4))
    with pytest.raises(SimilarityError, match="stack: source 'b': all 4 rows of features are equal") as caught:
        stack({"a": features, "b": np.ones((4, 2))}, [0, 0, 1, 1])
    assert caught.value.source == "b"
