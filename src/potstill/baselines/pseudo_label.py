"""Plain self-training: Pseudo-Label (Lee, ICML 2013 Workshop on Challenges in Representation Learning)."""

from __future__ import annotations

import torch
from torch import Tensor

from potstill.losses import cross_entropy
from potstill.training.loop import Forward, Objective
from potstill.types import Batch

RAMP = (1 / 6, 1.0)
"""Shares of the run between which the weight grows from nothing: the paper's steps 100 to 600 of 600 and more."""


def pseudo_label_objective(*, unlabeled_weight: float = 1.0) -> Objective:
    """Labeled cross-entropy plus the cross-entropy of each pool image with the class that the student gives it now.

    `l_s + alpha(t) * mean_B CE(argmax p, p)` (equations 15 and 16): alpha grows linearly over the run, since the first
    answers of a student are worth little.

    Args:
        unlabeled_weight: the last value of alpha.
    """

    def objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
        if batch.pool_weak is None:
            raise ValueError("self-training needs a batch with pool images")
        labeled = len(batch.labels)
        logits = student(torch.cat([batch.labeled_images, batch.pool_weak])).logits
        supervised = cross_entropy(logits[:labeled], batch.labels)
        unlabeled = cross_entropy(logits[labeled:], logits[labeled:].detach().argmax(dim=1))
        first, last = RAMP
        weight = unlabeled_weight * min(max((batch.progress - first) / (last - first), 0.0), 1.0)
        return {"loss": supervised + weight * unlabeled, "supervised": supervised, "unlabeled": unlabeled}

    return objective
