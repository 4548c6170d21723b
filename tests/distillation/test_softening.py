"""Softening against the formulas, written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from potstill.distillation.softening import (
    confidence_weights,
    entropy_shares,
    entropy_temperature,
    mean_entropy_share,
    soft_targets,
    standardised,
)
from potstill.errors import UsageError
from potstill.types import TAIL_TEMPERATURES, DenseLogits, DenseTargets, TopKLogits, TopKTargets


def dense(logits: np.ndarray) -> DenseLogits:
    maximum = logits.max(axis=1)
    shifted = logits - maximum[:, None]
    log_sum = maximum + np.log(np.exp(shifted).sum(axis=1))
    return DenseLogits(shifted.astype(np.float16), maximum.astype(np.float32), log_sum.astype(np.float32))


def top_k(logits: np.ndarray, kept: int) -> TopKLogits:
    order = np.argsort(-logits, axis=1)
    shifted = np.take_along_axis(logits, order, axis=1) - logits.max(axis=1, keepdims=True)
    tails = np.stack([np.log(np.exp(shifted[:, kept:] / each).sum(axis=1)) for each in TAIL_TEMPERATURES], axis=1)
    return TopKLogits(
        indices=order[:, :kept].astype(np.uint16),
        shifted=shifted[:, :kept].astype(np.float16),
        maximum=logits.max(axis=1).astype(np.float32),
        tails=tails.astype(np.float32),
        mean=logits.mean(axis=1).astype(np.float32),
        deviation=logits.std(axis=1).astype(np.float32),
        num_classes=logits.shape[1],
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def spread(targets: TopKTargets) -> np.ndarray:
    """All Z probs of top-k targets: the rest is even over the classes that are not listed."""
    indices, probs = targets.indices.numpy(), targets.probs.numpy().astype(np.float64)
    out = np.empty((len(probs), targets.num_classes))
    out[:] = (1 - probs.sum(axis=1, keepdims=True)) / (targets.num_classes - probs.shape[1])
    np.put_along_axis(out, indices, probs, axis=1)
    return out


def entropy_share(probs: np.ndarray) -> np.ndarray:
    logs = np.log(probs, where=probs > 0, out=np.zeros_like(probs))
    return -(probs * logs).sum(axis=1) / np.log(probs.shape[1])


@pytest.fixture
def logits() -> np.ndarray:
    # Quarters are exact in half precision: storing them loses nothing.
    return np.random.default_rng(0).integers(-24, 24, (40, 7)) / 4.0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.7])
@pytest.mark.parametrize("standardise", [False, True])
def test_dense_targets_are_the_softmax(logits: np.ndarray, temperature: float, standardise: bool) -> None:
    rows = np.array([3, 3, 39, 0])
    targets = soft_targets(dense(logits), rows, temperature=temperature, standardise=standardise)
    assert isinstance(targets, DenseTargets)
    chosen = logits[rows]
    if standardise:
        chosen = (chosen - chosen.mean(axis=1, keepdims=True)) / chosen.std(axis=1, keepdims=True)
    assert targets.probs.dtype == torch.float32
    np.testing.assert_allclose(targets.probs.numpy(), softmax(chosen / temperature), rtol=2e-5)


@pytest.mark.parametrize("temperature", TAIL_TEMPERATURES)
def test_top_k_targets_are_the_largest_of_the_softmax(logits: np.ndarray, temperature: float) -> None:
    targets = soft_targets(top_k(logits, 3), np.arange(40), temperature=temperature)
    assert isinstance(targets, TopKTargets)
    assert targets.num_classes == 7
    wanted = np.take_along_axis(softmax(logits / temperature), targets.indices.numpy(), axis=1)
    np.testing.assert_allclose(targets.probs.numpy(), wanted, rtol=1e-5)


def test_standardised_is_the_z_score_of_every_row(logits: np.ndarray) -> None:
    wanted = (logits - logits.mean(axis=1, keepdims=True)) / logits.std(axis=1, keepdims=True)
    got = standardised(torch.from_numpy(logits))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)
    # Neither the size of the logits nor a shift of them is left.
    np.testing.assert_allclose(standardised(torch.from_numpy(5 * logits - 3)).numpy(), wanted, atol=1e-5)


def test_gradient_of_standardised_is_that_of_the_formula(logits: np.ndarray) -> None:
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=logits.shape))
    ours = torch.from_numpy(logits).float().requires_grad_()
    (standardised(ours) * weights).sum().backward()
    reference = torch.from_numpy(logits).requires_grad_()
    mean, deviation = reference.mean(dim=1, keepdim=True), reference.std(dim=1, keepdim=True, correction=0)
    ((reference - mean) / deviation * weights).sum().backward()
    torch.testing.assert_close(ours.grad, reference.grad.float(), rtol=1e-4, atol=1e-5)


def test_equal_logits_are_uniform_and_their_gradient_is_finite() -> None:
    flat = torch.full((2, 5), 3.0, requires_grad=True)
    standardised(flat).square().sum().backward()
    assert torch.isfinite(flat.grad).all()
    targets = soft_targets(dense(np.full((1, 5), 3.0)), np.array([0]), temperature=1.0, standardise=True)
    np.testing.assert_allclose(targets.probs.numpy(), 0.2, rtol=1e-6)


@pytest.mark.parametrize("temperature", TAIL_TEMPERATURES)
def test_entropy_shares(logits: np.ndarray, temperature: float) -> None:
    targets = soft_targets(dense(logits), np.arange(40), temperature=temperature)
    wanted = entropy_share(softmax(logits / temperature))
    np.testing.assert_allclose(entropy_shares(targets).numpy(), wanted, atol=1e-6)
    mean = mean_entropy_share(dense(logits), np.arange(40), temperature=temperature)
    assert mean == pytest.approx(wanted.mean(), abs=1e-6)
    kept = soft_targets(top_k(logits, 3), np.arange(40), temperature=temperature)
    np.testing.assert_allclose(entropy_shares(kept).numpy(), entropy_share(spread(kept)), atol=1e-6)


def test_entropy_of_the_extremes() -> None:
    certain, uniform = torch.tensor([[1.0, 0.0, 0.0]]), torch.full((1, 3), 1 / 3)
    assert entropy_shares(DenseTargets(certain)).item() == 0
    assert entropy_shares(DenseTargets(uniform)).item() == pytest.approx(1, abs=1e-6)
    everything = TopKTargets(torch.tensor([[2, 0, 1]]), uniform, 3)
    assert entropy_shares(everything).item() == pytest.approx(1, abs=1e-6)


def test_a_source_with_one_class_is_refused() -> None:
    with pytest.raises(UsageError, match="one class says the same"):
        entropy_shares(DenseTargets(torch.ones(2, 1)))


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_sources_of_any_size_of_logits_get_the_same_entropy(share: float, standardise: bool) -> None:
    rng = np.random.default_rng(2)
    rows = np.arange(50)
    for classes, size in ((4, 0.7), (30, 2.0), (200, 6.0)):
        logits = rng.normal(scale=size, size=(50, classes)).astype(np.float16).astype(np.float64)
        found = entropy_temperature(dense(logits), rows, target_share=share, standardise=standardise, lowest=0.01)
        stored = dense(logits).shifted.astype(np.float64)
        if standardise:
            stored = (stored - stored.mean(axis=1, keepdims=True)) / stored.std(axis=1, keepdims=True)
        assert entropy_share(softmax(stored / found)).mean() == pytest.approx(share, abs=2e-4)


def test_scaled_logits_get_a_scaled_temperature(logits: np.ndarray) -> None:
    small, large = (
        entropy_temperature(dense(size * logits), np.arange(40), target_share=0.6, highest=50.0) for size in (1, 4)
    )
    assert large == pytest.approx(4 * small, rel=1e-3)


def test_a_share_out_of_reach_gives_the_nearer_limit(logits: np.ndarray) -> None:
    rows = np.arange(40)
    assert entropy_temperature(dense(logits), rows, target_share=0.999999) == 16.0
    assert entropy_temperature(dense(logits), rows, target_share=1e-6) == 0.25
    assert entropy_temperature(dense(np.zeros((40, 3))), rows, target_share=0.5) == 0.25


def test_a_large_pool_is_sampled_evenly() -> None:
    logits = np.random.default_rng(3).normal(scale=3, size=(5000, 6)).astype(np.float16)
    part = entropy_temperature(dense(logits), np.arange(5000), target_share=0.5, sample=500)
    whole = entropy_temperature(dense(logits), np.arange(5000), target_share=0.5, sample=5000)
    assert part == pytest.approx(whole, rel=0.1)
    assert part == entropy_temperature(
        dense(logits), np.linspace(0, 4999, 500).round().astype(np.int64), target_share=0.5
    )


def test_top_k_sources_get_the_nearest_temperature_that_was_kept() -> None:
    logits = np.random.default_rng(4).normal(scale=4, size=(30, 60))
    kept, rows = top_k(logits, 10), np.arange(30)
    shares = {each: entropy_share(spread(soft_targets(kept, rows, temperature=each))).mean() for each in (1, 2, 4)}
    for wanted in (0.05, 0.5, 0.7, 0.95):
        nearest = min(shares, key=lambda each: abs(shares[each] - wanted))
        assert entropy_temperature(kept, rows, target_share=wanted) == nearest


@pytest.mark.parametrize("kind", ["entropy", "maximum"])
@pytest.mark.parametrize("kept", [None, 3])
def test_confidence_has_mean_one_and_prefers_certain_answers(logits: np.ndarray, kind: str, kept: int | None) -> None:
    rows = np.random.default_rng(5).permutation(40)[:25]
    stored = dense(logits) if kept is None else top_k(logits, kept)
    weights = confidence_weights(stored, rows, kind=kind, temperature=2.0)
    probs = softmax(logits[rows] / 2)
    if kept is not None:
        probs = spread(soft_targets(stored, rows, temperature=2.0))
    wanted = 1 - entropy_share(probs) if kind == "entropy" else probs.max(axis=1)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, wanted / wanted.mean(), rtol=2e-5)
    assert weights.mean(dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_confidence_is_read_from_standardised_answers_where_these_are_learnt(logits: np.ndarray) -> None:
    rows = np.arange(40)
    weights = confidence_weights(dense(logits), rows, kind="maximum", temperature=0.3, standardise=True)
    scores = (logits - logits.mean(axis=1, keepdims=True)) / logits.std(axis=1, keepdims=True)
    wanted = softmax(scores / 0.3).max(axis=1)
    np.testing.assert_allclose(weights, wanted / wanted.mean(), rtol=2e-5)
    with pytest.raises(UsageError, match="only the 3 likeliest"):
        confidence_weights(top_k(logits, 3), rows, kind="maximum", standardise=True)


def test_confidence_of_long_pools_is_normalised_as_one() -> None:
    logits = np.random.default_rng(6).normal(size=(9000, 3)).astype(np.float16)
    weights = confidence_weights(dense(logits), np.arange(9000), kind="entropy")
    stored = dense(logits).shifted.astype(np.float64)
    wanted = 1 - entropy_share(softmax(stored))
    np.testing.assert_allclose(weights, wanted / wanted.mean(), rtol=1e-3, atol=1e-5)


def test_no_confidence_and_confidence_of_a_source_that_knows_nothing() -> None:
    flat = dense(np.zeros((4, 3)))
    assert confidence_weights(flat, np.arange(4), kind="none") is None
    assert confidence_weights(flat, np.arange(4), kind="entropy").tolist() == [1, 1, 1, 1]


def test_what_cannot_be_softened_is_refused(logits: np.ndarray) -> None:
    rows = np.arange(4)
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="positive number"):
            soft_targets(dense(logits), rows, temperature=temperature)
    with pytest.raises(UsageError, match="only the 3 likeliest"):
        soft_targets(top_k(logits, 3), rows, temperature=1.0, standardise=True)
    with pytest.raises(UsageError, match=r"1, 2, 4, not 2\.5"):
        soft_targets(top_k(logits, 3), rows, temperature=2.5)
    with pytest.raises(UsageError, match="only the 3 likeliest"):
        entropy_temperature(top_k(logits, 3), rows, target_share=0.5, standardise=True)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            entropy_temperature(dense(logits), rows, target_share=share)
    with pytest.raises(UsageError, match="two positive limits"):
        entropy_temperature(dense(logits), rows, target_share=0.5, lowest=2.0, highest=1.0)
    with pytest.raises(UsageError, match="none, entropy or maximum"):
        confidence_weights(dense(logits), rows, kind="margin")
    with pytest.raises(UsageError, match="at least one row"):
        confidence_weights(dense(logits), rows[:0], kind="entropy")
    with pytest.raises(UsageError, match="at least one row"):
        entropy_temperature(dense(logits), rows[:0], target_share=0.5)
