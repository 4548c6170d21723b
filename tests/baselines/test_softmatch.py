"""SoftMatch's weights and running averages by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from potstill.baselines.softmatch import SoftMatch
from potstill.training.student import StudentOutputs
from potstill.types import Batch

IMAGE = torch.zeros(2, 3, 1, 1)
BATCH = Batch(IMAGE[:1], torch.tensor([1]), torch.tensor([0, 1]), IMAGE, IMAGE)
LOGITS = torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.2, 0.0], [1.0, -1.0], [-2.0, 1.0]])
"""One labeled image, two weak views (sure and unsure), two strong ones."""


def student(images: torch.Tensor, labeled: int | None = None) -> StudentOutputs:
    assert len(images) == 5
    return StudentOutputs(images, student_logits, torch.empty(0, 0))


student_logits = LOGITS


def test_weights_fall_like_a_normal_curve_below_the_running_mean() -> None:
    terms = SoftMatch(2, momentum=0.5, sharpness=2.0)(student, BATCH)
    # An independent calculation in plain numbers.
    sure, unsure = 1 / (1 + math.exp(-3.0)), 1 / (1 + math.exp(-0.2))
    mean = 0.5 * 0.5 + 0.5 * (sure + unsure) / 2
    variance = 0.5 * 1.0 + 0.5 * np.var([sure, unsure], ddof=1)
    share = 0.5 * 0.5 + 0.5 * (sure + unsure) / 2  # of class 0

    def aligned(p: float) -> float:
        first, second = p / share, (1 - p) / (1 - share)
        return max(first, second) / (first + second)

    weights = [
        1.0 if aligned(p) >= mean else math.exp(-((aligned(p) - mean) ** 2) / (2 * variance / 4))
        for p in (sure, unsure)
    ]
    assert weights[0] == 1.0 > weights[1]
    losses = [F.cross_entropy(LOGITS[row : row + 1], torch.tensor([0])).item() for row in (3, 4)]
    assert terms["unlabeled"].item() == pytest.approx(np.mean(np.multiply(weights, losses)), rel=1e-6)
    supervised = F.cross_entropy(LOGITS[:1], torch.tensor([1])).item()
    assert terms["loss"].item() == pytest.approx(supervised + terms["unlabeled"].item(), rel=1e-6)
    assert terms["mean_weight"].item() == pytest.approx(np.mean(weights), rel=1e-6)


def test_running_averages_start_at_chance_and_follow_the_batches() -> None:
    method = SoftMatch(2, momentum=0.9)
    assert method.mean.item() == 0.5
    assert method.frequencies.tolist() == [0.5, 0.5]
    for _ in range(200):
        method(student, BATCH)
    probs = LOGITS[1:3].softmax(dim=1)
    torch.testing.assert_close(method.mean, probs.amax(dim=1).mean())
    torch.testing.assert_close(method.frequencies, probs.mean(dim=0))


def test_weak_views_carry_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    terms = SoftMatch(2)(lambda images, labeled=None: StudentOutputs(images, logits, torch.empty(0, 0)), BATCH)
    terms["loss"].backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[1:3], torch.zeros(2, 2))
    assert (logits.grad[[0, 3, 4]] != 0).all()


def test_one_pool_image_in_a_batch_has_no_spread() -> None:
    image = torch.zeros(1, 3, 1, 1)
    batch = Batch(image, torch.tensor([1]), torch.tensor([0]), image, image)
    logits = LOGITS[[0, 1, 3]]
    terms = SoftMatch(2)(lambda images, labeled=None: StudentOutputs(images, logits, torch.empty(0, 0)), batch)
    assert math.isfinite(terms["loss"].item())


def test_wrong_momentum_and_missing_views_are_refused() -> None:
    with pytest.raises(ValueError, match="momentum"):
        SoftMatch(2, momentum=1.0)
    with pytest.raises(ValueError, match="weak and strong views"):
        SoftMatch(2)(student, Batch(IMAGE, torch.tensor([0, 1]), torch.tensor([0, 1]), IMAGE, None))
