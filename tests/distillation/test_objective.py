"""The distillation loss against the formula, written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from potstill.distillation.objective import SourceTargets, source_space_objective
from potstill.training.student import StudentOutputs
from potstill.types import Batch, DenseLogits


def dense(logits: np.ndarray) -> DenseLogits:
    maximum = logits.max(axis=1)
    shifted = logits - maximum[:, None]
    return DenseLogits(
        shifted=shifted.astype(np.float16),
        maximum=maximum.astype(np.float32),
        log_sum_exp=(maximum + np.log(np.exp(shifted).sum(axis=1))).astype(np.float32),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("label_weight", [0.0, 0.3, 1.0])
def test_equals_the_formula(temperature: float, label_weight: float) -> None:
    rng = np.random.default_rng(0)
    classes, labeled, pool = {"a": 5, "b": 3}, 4, 6
    # Half-precision values, so that storing them loses nothing.
    answers = {name: rng.integers(-8, 1, (20, z)) / 4 for name, z in classes.items()}
    weights = {"a": 0.75, "b": 0.25}
    order = rng.permutation(20)
    pool_rows = rng.integers(0, 20, pool)
    target_logits = rng.normal(size=(labeled + pool, 4))
    head_logits = {name: rng.normal(size=(labeled + pool, z)) for name, z in classes.items()}
    labels = rng.integers(0, 4, labeled)

    def student(images: torch.Tensor) -> StudentOutputs:
        assert len(images) == labeled + pool
        heads = {name: torch.from_numpy(value).float() for name, value in head_logits.items()}
        return StudentOutputs(images, torch.from_numpy(target_logits).float(), heads)

    batch = Batch(
        labeled_images=torch.zeros(labeled, 3, 1, 1),
        labels=torch.from_numpy(labels),
        pool_rows=torch.from_numpy(pool_rows),
        pool_weak=torch.zeros(pool, 3, 1, 1),
        pool_strong=None,
        progress=0.0,
    )
    targets = {name: SourceTargets(dense(value), order) for name, value in answers.items()}
    objective = source_space_objective(targets, weights, label_weight=label_weight, temperature=temperature)
    terms = objective(student, batch)

    supervised = -np.log(softmax(target_logits[:labeled])[np.arange(labeled), labels]).mean()
    distilled = 0.0
    for name, weight in weights.items():
        wanted = softmax(answers[name][order[pool_rows]] / temperature)
        given = np.log(softmax(head_logits[name][labeled:] / temperature))
        distilled += weight * temperature**2 * -(wanted * given).sum(axis=1).mean()
    expected = label_weight * supervised + (1 - label_weight) * distilled
    assert float(terms["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["supervised"]) == pytest.approx(supervised, rel=1e-5)
    assert float(terms["distilled"]) == pytest.approx(distilled, rel=1e-5)


def test_a_batch_without_pool_is_refused() -> None:
    objective = source_space_objective({}, {}, label_weight=0.5, temperature=1.0)
    batch = Batch(torch.zeros(1, 3, 1, 1), torch.zeros(1, dtype=torch.long), None, None, None, 0.0)
    with pytest.raises(ValueError, match="needs a batch with pool images"):
        objective(lambda images: StudentOutputs(images, images, {}), batch)
