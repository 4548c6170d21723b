"""Gathered answers against softmax in float64, row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from potstill.distillation.answers import PoolAnswers, SourceAnswers
from potstill.errors import SourceError, UsageError
from potstill.types import TAIL_TEMPERATURES, DenseLogits, DenseTargets, SoftTargets, TopKLogits, TopKTargets

IMAGES = 12


def dense(values: np.ndarray) -> DenseLogits:
    maximum = values.max(axis=1)
    shifted = (values - maximum[:, None]).astype(np.float16)
    return DenseLogits(shifted, maximum.astype(np.float32), maximum.astype(np.float32))


def top_k(values: np.ndarray, kept: int) -> TopKLogits:
    order = np.argsort(-values, axis=1)
    shifted = np.take_along_axis(values, order, axis=1) - values.max(axis=1, keepdims=True)
    tails = np.stack([np.log(np.exp(shifted[:, kept:] / each).sum(axis=1)) for each in TAIL_TEMPERATURES], axis=1)
    nothing = np.zeros(len(values), dtype=np.float32)
    indices, near = order[:, :kept].astype(np.uint16), shifted[:, :kept].astype(np.float16)
    return TopKLogits(indices, near, nothing, tails.astype(np.float32), nothing, nothing, values.shape[1])


def softmax(values: np.ndarray) -> np.ndarray:
    exp = np.exp(values - values.max())
    return exp / exp.sum()


def gathered(answers: SourceAnswers, images: np.ndarray, passes: np.ndarray) -> tuple[SoftTargets, ...]:
    return answers.gather(torch.from_numpy(images), torch.from_numpy(passes))


def quarters(rng: np.random.Generator, classes: int, rows: int = 20) -> np.ndarray:
    """Logits without ties that half precision holds exactly."""
    return rng.permuted(np.tile(np.arange(classes) / 4.0, (rows, 1)), axis=1)


@pytest.mark.parametrize("views", [1, 2, 3])
def test_every_row_comes_from_the_view_of_its_pass(views: int) -> None:
    rng = np.random.default_rng(views)
    stored = [(quarters(rng, 9), rng.permutation(20)[:IMAGES]) for _ in range(views)]
    sparse = [(quarters(rng, 15), rng.permutation(20)[:IMAGES]) for _ in range(views)]
    confidences = [rng.random(IMAGES).astype(np.float32) for _ in range(views)]
    answers = SourceAnswers(
        {
            "a": PoolAnswers([(dense(values), rows) for values, rows in stored], temperature=2.5),
            "b": PoolAnswers([(top_k(values, 4), rows) for values, rows in sparse], 2.0, confidences=confidences),
            "c": PoolAnswers([(dense(values), rows) for values, rows in stored], 3.0, standardise=True),
        }
    )
    assert dict(answers.num_classes) == {"a": 9, "b": 15, "c": 9}
    assert dict(answers.temperatures) == {"a": 2.5, "b": 2.0, "c": 3.0}
    images = rng.integers(0, IMAGES, 30)
    passes = rng.integers(0, 7, 30)
    first, second, third = gathered(answers, images, passes)
    assert isinstance(first, DenseTargets)
    assert isinstance(second, TopKTargets)
    assert isinstance(third, DenseTargets)
    assert first.probs.dtype == second.probs.dtype == second.confidence.dtype == torch.float32
    assert second.num_classes == 15
    assert first.confidence is None
    for place, (image, number) in enumerate(zip(images, passes, strict=True)):
        view = number % views
        values, rows = stored[view]
        np.testing.assert_allclose(first.probs[place], softmax(values[rows[image]] / 2.5), rtol=1e-5)
        scores = (values[rows[image]] - values[rows[image]].mean()) / values[rows[image]].std()
        np.testing.assert_allclose(third.probs[place], softmax(scores / 3), rtol=1e-5)
        values, rows = sparse[view]
        wanted = softmax(values[rows[image]] / 2)
        assert second.indices[place].tolist() == np.argsort(-wanted)[:4].tolist()
        np.testing.assert_allclose(second.probs[place], np.sort(wanted)[::-1][:4], rtol=1e-5)
        assert second.confidence[place] == confidences[view][image]


def test_a_batch_of_one_pass_and_an_empty_batch() -> None:
    rng = np.random.default_rng(0)
    views = [(dense(quarters(rng, 5)), np.arange(IMAGES)) for _ in range(2)]
    answers = SourceAnswers({"a": PoolAnswers(views)})
    alone = SourceAnswers({"a": PoolAnswers(views[1:])})
    images = np.array([3, 0, 3])
    assert torch.equal(
        gathered(answers, images, np.full(3, 5))[0].probs, gathered(alone, images, np.full(3, 8))[0].probs
    )
    assert gathered(alone, images[:0], images[:0])[0].probs.shape == (0, 5)
    assert gathered(SourceAnswers({}), images, images) == ()


def test_gathering_changes_nothing_and_reads_only_the_rows_asked_for() -> None:
    class Counting:
        def __init__(self, values: np.ndarray) -> None:
            self.values, self.shape, self.asked = values, values.shape, 0

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            self.asked += len(rows)
            return self.values[rows]

    stored = dense(quarters(np.random.default_rng(1), 5))
    before, counting = stored.shifted.copy(), Counting(stored.shifted)
    answers = SourceAnswers({"a": PoolAnswers([(DenseLogits(counting, counting, counting), np.arange(IMAGES))], 4.0)})
    first = gathered(answers, np.array([1, 2]), np.array([0, 0]))[0].probs.clone()
    gathered(answers, np.array([1, 2]), np.array([0, 0]))[0].probs.zero_()
    assert counting.asked == 4
    assert torch.equal(gathered(answers, np.array([1, 2]), np.array([0, 0]))[0].probs, first)
    assert np.array_equal(before, stored.shifted)


def test_rows_outside_the_pool_are_refused() -> None:
    answers = SourceAnswers({"a": PoolAnswers([(dense(np.eye(20)), np.arange(IMAGES))])})
    for row in (-1, IMAGES):
        with pytest.raises(IndexError):
            gathered(answers, np.array([0, row]), np.array([0, 0]))
    with pytest.raises(ValueError, match="a pass for each"):
        gathered(answers, np.array([0, 1]), np.array([0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answers_that_are_not_finite_name_their_source(bad: float) -> None:
    damaged = dense(np.eye(20))
    damaged.shifted[4, 2] = bad
    sound = PoolAnswers([(dense(np.eye(20)), np.arange(IMAGES))])
    answers = SourceAnswers({"sound": sound, "damaged": PoolAnswers([(damaged, np.arange(IMAGES))])})
    gathered(answers, np.array([3]), np.array([0]))
    with pytest.raises(SourceError, match="Source damaged"):
        gathered(answers, np.array([3, 4]), np.array([0, 0]))


def test_what_does_not_fit_is_refused_on_creation() -> None:
    small, large = dense(np.eye(20)), dense(np.zeros((20, 4)))
    rows = np.arange(IMAGES)
    with pytest.raises(UsageError, match="at least one stored view"):
        PoolAnswers([])
    with pytest.raises(UsageError, match="same classes and images"):
        PoolAnswers([(small, rows), (large, rows)])
    with pytest.raises(UsageError, match="same classes and images"):
        PoolAnswers([(small, rows), (small, rows[:-1])])
    with pytest.raises(UsageError, match="same classes and images"):
        PoolAnswers([(small, rows)], confidences=[np.ones(IMAGES - 1, dtype=np.float32)])
    with pytest.raises(UsageError, match="need as many confidences"):
        PoolAnswers([(small, rows), (small, rows)], confidences=[np.ones(IMAGES, dtype=np.float32)])
    with pytest.raises(UsageError, match="positive number"):
        PoolAnswers([(small, rows)], temperature=0.0)
    with pytest.raises(UsageError, match="only the 3 likeliest"):
        PoolAnswers([(top_k(quarters(np.random.default_rng(0), 9), 3), rows)], standardise=True)
    with pytest.raises(UsageError, match=r"not 3"):
        PoolAnswers([(top_k(quarters(np.random.default_rng(0), 9), 3), rows)], temperature=3.0)
    with pytest.raises(UsageError, match="the same pool"):
        SourceAnswers({"a": PoolAnswers([(small, rows)]), "b": PoolAnswers([(small, rows[:-1])])})
