"""Self-training's loss by hand, along the run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from potstill.baselines.pseudo_label import pseudo_label_objective
from potstill.training.student import StudentOutputs
from potstill.types import Batch

IMAGE = torch.zeros(2, 3, 1, 1)
BATCH = Batch(IMAGE[:1], torch.tensor([1]), torch.tensor([0, 1]), IMAGE, None)
LOGITS = torch.tensor([[2.0, 0.0], [3.0, 0.0], [-0.2, 0.0]])


def student(images: torch.Tensor, labeled: int | None = None) -> StudentOutputs:
    assert len(images) == 3
    return StudentOutputs(images, LOGITS, torch.empty(0, 0))


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.0), (1 / 6, 0.0), (7 / 12, 1.5), (0.999, 3.0)])
def test_own_answers_count_more_and_more(progress: float, weight: float) -> None:
    terms = pseudo_label_objective(unlabeled_weight=3.0)(student, replace(BATCH, progress=progress))
    supervised = F.cross_entropy(LOGITS[:1], torch.tensor([1])).item()
    unlabeled = F.cross_entropy(LOGITS[1:], torch.tensor([0, 1])).item()
    assert terms["loss"].item() == pytest.approx(supervised + weight * unlabeled, rel=2e-3)


def test_a_batch_without_pool_images_is_refused() -> None:
    with pytest.raises(ValueError, match="pool images"):
        pseudo_label_objective()(student, replace(BATCH, pool_weak=None))
