"""The fused objective by hand, at the beginning, the middle and the end of a run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from potstill.distillation.fusion import fuse, fused_objective
from potstill.training.student import StudentOutputs
from potstill.types import Batch, DenseTargets

IMAGE = torch.zeros(2, 3, 1, 1)
STACK = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
ANSWER = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
BATCH = Batch(
    IMAGE[:1],
    torch.tensor([1]),
    torch.tensor([0, 1]),
    IMAGE,
    IMAGE,
    answers=(DenseTargets(ANSWER),),
    target_probs=STACK,
)
LOGITS = torch.tensor([[2.0, 0.0], [1.0, -1.0], [-2.0, 1.0], [0.5, 0.0], [0.0, 3.0]])
"""One labeled image, two strong views, two weak ones."""
SOURCE_LOGITS = torch.tensor([[0.3, 0.1, 0.0], [0.0, 2.0, 1.0]])


def student(images: torch.Tensor, labeled: int | None = None) -> StudentOutputs:
    assert (len(images), labeled) == (5, 3)
    return StudentOutputs(images, LOGITS, SOURCE_LOGITS)


def expected(progress: float, threshold: float, handover: float, soft: bool, source_weight: float) -> float:
    """The same in plain numbers, with a weak view that counts a quarter."""

    def log_softmax(row: list[float]) -> list[float]:
        total = math.log(sum(map(math.exp, row)))
        return [value - total for value in row]

    logits = LOGITS.tolist()
    loss = -log_softmax(logits[0])[1]
    for image in range(2):
        own, stack = log_softmax(logits[3 + image]), [math.log(value) for value in STACK[image].tolist()]
        share = handover * progress
        mixed = [
            math.exp(v) for v in log_softmax([share * a + (1 - share) * b for a, b in zip(own, stack, strict=True)])
        ]
        best = int(np.argmax(mixed))
        if mixed[best] >= threshold:
            learnt = mixed if soft else [float(label == best) for label in range(2)]
            for row, weight in ((1, 1.0), (3, 0.25)):
                log_probs = log_softmax(logits[row + image])
                loss -= weight * sum(p * log_p for p, log_p in zip(learnt, log_probs, strict=True)) / 2
        log_probs = log_softmax(SOURCE_LOGITS[image].tolist())
        answered = -sum(p * log_p for p, log_p in zip(ANSWER[image].tolist(), log_probs, strict=True))
        loss += source_weight * (1 - progress) * answered / 2
    return loss


@pytest.mark.parametrize("progress", [0.0, 0.4, 0.99])
@pytest.mark.parametrize("threshold", [0.0, 0.8])
@pytest.mark.parametrize("handover", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("source_weight", [0.0, 0.5])
def test_loss_by_hand(progress: float, threshold: float, handover: float, soft: bool, source_weight: float) -> None:
    options = {"threshold": threshold, "handover": handover, "soft": soft, "source_weight": source_weight}
    objective = fused_objective([1.0], temperatures=[1.0], weak_weight=0.25, **options)  # type: ignore[arg-type]
    terms = objective(student, replace(BATCH, progress=progress))
    by_hand = expected(progress, threshold, handover, soft, source_weight)
    assert terms["loss"].item() == pytest.approx(by_hand, rel=1e-5)


def test_without_weak_views_the_stack_alone_is_learnt() -> None:
    objective = fused_objective([], temperatures=[])
    batch = replace(BATCH, pool_weak=None, answers=(), progress=0.5)
    terms = objective(lambda images, labeled=None: StudentOutputs(images, LOGITS[:3], LOGITS[:0]), batch)
    by_hand = F.cross_entropy(LOGITS[:1], torch.tensor([1])) + F.cross_entropy(LOGITS[1:3], STACK)
    torch.testing.assert_close(terms["loss"], by_hand)


def test_the_stack_leads_first_and_the_student_last() -> None:
    weak = LOGITS[3:]
    torch.testing.assert_close(fuse(weak, STACK, progress=0.0), STACK)
    torch.testing.assert_close(fuse(weak, STACK, progress=1.0), weak.softmax(dim=1))


def test_a_class_that_the_stack_excludes_is_not_excluded_for_good() -> None:
    found = fuse(torch.tensor([[0.0, 20.0]]), torch.tensor([[1.0, 0.0]]), progress=0.9)
    assert torch.isfinite(found).all()
    assert found.argmax().item() == 1


def test_pseudo_labels_carry_no_gradient_of_their_own() -> None:
    logits = LOGITS.clone().requires_grad_()
    objective = fused_objective([1.0], temperatures=[1.0], handover=1.0, soft=False)
    terms = objective(
        lambda images, labeled=None: StudentOutputs(images, logits, SOURCE_LOGITS), replace(BATCH, progress=0.5)
    )
    terms["loss"].backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[3:], torch.zeros(2, 2))
    labels = fuse(LOGITS[3:], STACK, progress=0.5).argmax(dim=1)
    reference = LOGITS[1:3].clone().requires_grad_()
    F.cross_entropy(reference, labels).backward()
    torch.testing.assert_close(logits.grad[1:3], reference.grad)


def test_missing_parts_of_a_batch_are_refused() -> None:
    objective = fused_objective([1.0], temperatures=[1.0], source_weight=0.5)
    with pytest.raises(ValueError, match="stack's probabilities"):
        objective(student, replace(BATCH, target_probs=None))
    with pytest.raises(ValueError, match="1 sources' answers, got 0"):
        objective(student, replace(BATCH, answers=()))


def test_standardised_answers_are_compared_with_standardised_logits() -> None:
    options = {"temperatures": [1.0], "threshold": 2.0, "source_weight": 1.0}
    plain, scored = (fused_objective([1.0], standardise=flag, **options)(student, BATCH) for flag in (False, True))  # type: ignore[arg-type]
    centred = SOURCE_LOGITS - SOURCE_LOGITS.mean(dim=1, keepdim=True)
    scores = centred / centred.std(dim=1, correction=0, keepdim=True)
    expected_loss = F.cross_entropy(scores, ANSWER).item()
    assert scored["distilled"].item() == pytest.approx(expected_loss, rel=1e-3)
    assert plain["distilled"].item() == pytest.approx(F.cross_entropy(SOURCE_LOGITS, ANSWER).item(), rel=1e-5)
