"""Random problems on which every metric is compared with a slow reference."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

SHAPES = [(24, 3, 2), (40, 200, 5), (90, 150, 37), (60, 16, 7), (35, 35, 4)]  # images, dimensions, classes


class Problem(NamedTuple):
    """Whatever a metric may need, by the names that `Metric.needs` uses."""

    features: np.ndarray
    probs: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    reference_features: np.ndarray
    random_features: np.ndarray


def make_problem(seed: int) -> Problem:
    """Unbalanced classes, named by arbitrary integers, with some signal in features and probs."""
    generator = np.random.default_rng(seed)
    images, dimensions, classes = SHAPES[seed % len(SHAPES)]
    shares = generator.dirichlet(np.full(classes, 2.0))
    index = np.concatenate([np.arange(classes), generator.choice(classes, images - classes, p=shares)])
    generator.shuffle(index)
    centres = generator.normal(size=(classes, dimensions)) * generator.uniform(0, 1)
    features = (centres[index] + generator.normal(size=(images, dimensions))) * generator.uniform(0.1, 9, dimensions)
    logits = features @ generator.normal(size=(dimensions, 11)) / dimensions
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = generator.permutation(1000)[:classes][index] - 500
    features += generator.normal()
    # Another model that sees the same classes, and one whose features are the mixed-up pixels.
    reference = 2 * generator.normal(size=(classes, 12))[index] + generator.normal(size=(images, 12))
    mixed = np.tanh(features @ generator.normal(size=(dimensions, 20)) / dimensions)
    return Problem(features, probs, names, logits, reference, mixed)


@pytest.fixture
def problem_of() -> Callable[[int], Problem]:
    return make_problem


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "problem" in metafunc.fixturenames:
        metafunc.parametrize("problem", [make_problem(seed) for seed in range(20)], ids=lambda _: "")
