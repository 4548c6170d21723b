"""Propagation against its closed form and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from potstill.distillation.propagation import NEIGHBOURS, SHARPNESS, neighbour_graph, propagate


def make_directions(count: int = 60, dimensions: int = 5) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def naive_graph(directions: np.ndarray) -> np.ndarray:
    count = len(directions)
    weights = np.zeros((count, count))
    for one in range(count):
        cosines = [(float(directions[one] @ directions[other]), other) for other in range(count) if other != one]
        for cosine, other in sorted(cosines, reverse=True)[:NEIGHBOURS]:
            weights[one, other] = max(cosine, 0.0) ** SHARPNESS
    weights = np.maximum(weights, weights.T)
    degrees = weights.sum(axis=1)
    return weights / np.sqrt(np.outer(degrees, degrees))


def test_the_graph_is_that_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    directions = make_directions()
    np.testing.assert_allclose(neighbour_graph(directions).toarray(), naive_graph(directions), atol=1e-5)
    monkeypatch.setattr("potstill.distillation.propagation.BLOCK", 7)
    np.testing.assert_allclose(neighbour_graph(directions).toarray(), naive_graph(directions), atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_the_iteration_reaches_the_closed_form(share: float) -> None:
    directions = make_directions()
    probs = np.random.default_rng(1).dirichlet(np.ones(4), size=60).astype(np.float32)
    graph = neighbour_graph(directions)
    exact = (1 - share) * np.linalg.solve(np.eye(60) - share * graph.toarray(), probs)
    found = propagate(probs, graph, share=share)
    np.testing.assert_allclose(found, exact / exact.sum(axis=1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_an_outvoted_image_joins_its_neighbours() -> None:
    directions = np.repeat(np.eye(2, dtype=np.float32), 8, axis=0)
    directions += 0.05 * np.random.default_rng(0).normal(size=directions.shape).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    probs = np.repeat(np.array([[0.9, 0.1], [0.1, 0.9]], dtype=np.float32), 8, axis=0)
    probs[3] = [0.4, 0.6]
    found = propagate(probs, neighbour_graph(directions), share=0.8)
    assert found[3].argmax() == 0
    assert (found.argmax(axis=1) == np.repeat([0, 1], 8)).all()


def test_few_images_and_wrong_shares() -> None:
    graph = neighbour_graph(make_directions(count=3))
    assert graph.shape == (3, 3)
    with pytest.raises(ValueError, match="share"):
        propagate(np.ones((3, 2), dtype=np.float32), graph, share=1.0)
