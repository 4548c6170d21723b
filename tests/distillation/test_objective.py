"""The distillation loss against the formula, written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from potstill.distillation.objective import source_space_objective
from potstill.training.student import StudentOutputs
from potstill.types import Batch, DenseTargets


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("label_weight", [0.0, 0.3, 1.0])
def test_equals_the_formula(label_weight: float, standardise: bool) -> None:
    rng = np.random.default_rng(0)
    classes, labeled, pool = (5, 3), 4, 6
    weights, temperatures = (0.75, 0.25), (1.0, 2.5)
    answers = [softmax(rng.normal(size=(pool, z))) for z in classes]
    target_logits = rng.normal(size=(labeled + pool, 4))
    head_logits = [rng.normal(size=(pool, z)) for z in classes]
    labels = rng.integers(0, 4, labeled)

    def student(images: torch.Tensor, given: int | None = None, /) -> StudentOutputs:
        assert (len(images), given) == (labeled + pool, labeled)
        return StudentOutputs(
            images, torch.from_numpy(target_logits).float(), torch.from_numpy(np.hstack(head_logits)).float()
        )

    batch = Batch(
        labeled_images=torch.zeros(labeled, 3, 1, 1),
        labels=torch.from_numpy(labels),
        pool_rows=torch.zeros(pool, dtype=torch.long),
        pool_weak=torch.zeros(pool, 3, 1, 1),
        pool_strong=None,
        answers=tuple(DenseTargets(torch.from_numpy(each).float()) for each in answers),
    )
    objective = source_space_objective(
        weights, label_weight=label_weight, temperatures=temperatures, label_smoothing=0.1, standardise=standardise
    )
    terms = objective(student, batch)

    wanted = 0.9 * np.eye(4)[labels] + 0.1 / 4
    supervised = -(wanted * np.log(softmax(target_logits[:labeled]))).sum(axis=1).mean()
    distilled = 0.0
    for weight, temperature, answer, logits in zip(weights, temperatures, answers, head_logits, strict=True):
        if standardise:
            logits = (logits - logits.mean(1, keepdims=True)) / np.sqrt(logits.var(1, keepdims=True) + 1e-6)
        given = np.log(softmax(logits / temperature))
        distilled += weight * temperature**2 * -(answer * given).sum(axis=1).mean()
    expected = label_weight * supervised + (1 - label_weight) * distilled
    assert float(terms["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["supervised"]) == pytest.approx(supervised, rel=1e-5)
    assert float(terms["distilled"]) == pytest.approx(distilled, rel=1e-5)


def test_a_batch_without_pool_or_answers_is_refused() -> None:
    objective = source_space_objective([1.0], label_weight=0.5, temperatures=[1.0])
    images = torch.zeros(1, 3, 1, 1)
    for pool in (None, images):
        batch = Batch(images, torch.zeros(1, dtype=torch.long), None, pool, None)
        with pytest.raises(ValueError, match="needs a batch with pool images and 1 answers"):
            objective(lambda images, labeled=None, /: StudentOutputs(images, images, images), batch)
