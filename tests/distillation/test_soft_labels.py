"""The objective of soft labels, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from potstill.distillation.soft_labels import soft_label_objective
from potstill.training.student import StudentOutputs
from potstill.types import Batch

IMAGES = torch.zeros(2, 3, 1, 1)
TEACHER = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
BATCH = Batch(IMAGES[:1], torch.tensor([1]), torch.tensor([0, 1]), None, IMAGES, target_probs=TEACHER)
LOGITS = torch.tensor([[2.0, 0.0], [1.0, -1.0], [-2.0, 1.0]])
"""One labeled image, two strong views."""


def student(images: torch.Tensor, labeled: int | None = None) -> StudentOutputs:
    assert (len(images), labeled) == (3, None)
    return StudentOutputs(images, LOGITS, images.new_empty(0, 0))


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(map(math.exp, row)))
    return [value - total for value in row]


def test_loss_by_hand() -> None:
    terms = soft_label_objective()(student, BATCH)
    labeled, first, second = (log_softmax(row) for row in LOGITS.tolist())
    unlabeled = -(0.9 * first[0] + 0.1 * first[1] + 0.3 * second[0] + 0.7 * second[1]) / 2
    assert terms["supervised"].item() == pytest.approx(-labeled[1], rel=1e-5)
    assert terms["unlabeled"].item() == pytest.approx(unlabeled, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(-labeled[1] + unlabeled, rel=1e-5)


def test_a_student_that_says_what_the_teacher_says_has_no_gradient() -> None:
    logits = torch.cat([torch.tensor([[-40.0, 40.0]]), TEACHER.log()]).requires_grad_()
    terms = soft_label_objective()(lambda images, labeled=None: StudentOutputs(images, logits, images[:0]), BATCH)
    terms["loss"].backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(3, 2), atol=1e-6, rtol=0)


def test_missing_parts_of_a_batch_are_refused() -> None:
    for missing in ({"target_probs": None}, {"pool_strong": None}):
        with pytest.raises(ValueError, match="strong views and the teacher's probabilities"):
            soft_label_objective()(student, replace(BATCH, **missing))  # type: ignore[arg-type]
