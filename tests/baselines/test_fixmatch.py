"""FixMatch's loss by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from potstill.baselines.fixmatch import fixmatch_objective
from potstill.training.student import StudentOutputs
from potstill.types import Batch


def test_only_confident_weak_views_teach_and_without_gradient() -> None:
    logits = torch.tensor(
        [[2.0, 0.0], [5.0, 0.0], [0.1, 0.0], [1.0, -1.0], [-2.0, 1.0]], requires_grad=True
    )  # one labeled, two weak (the first confident at 0.95, the second not), two strong

    def student(images: torch.Tensor) -> StudentOutputs:
        assert len(images) == 5
        return StudentOutputs(images, logits, {})

    image = torch.zeros(2, 3, 1, 1)
    batch = Batch(image[:1], torch.tensor([1]), torch.tensor([0, 1]), image, image)
    terms = fixmatch_objective(threshold=0.95, unlabeled_weight=2.0)(student, batch)
    supervised = F.cross_entropy(logits[:1], torch.tensor([1]))
    # Equation 4 divides by all unlabeled images, not by the confident ones.
    unlabeled = F.cross_entropy(logits[3:4], torch.tensor([0])) / 2
    assert terms["loss"].item() == pytest.approx((supervised + 2 * unlabeled).item())
    assert float(terms["confident_share"]) == 0.5
    terms["loss"].backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[1:3], torch.zeros(2, 2))
    assert torch.equal(logits.grad[4], torch.zeros(2))


def test_a_batch_without_strong_views_is_refused() -> None:
    image = torch.zeros(1, 3, 1, 1)
    batch = Batch(image, torch.tensor([0]), torch.tensor([0]), image, None)
    with pytest.raises(ValueError, match="weak and strong views"):
        fixmatch_objective()(lambda images: StudentOutputs(images, images, {}), batch)
