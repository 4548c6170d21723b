"""FixMatch (Sohn et al., NeurIPS 2020, arXiv 2001.07685)."""

from __future__ import annotations

import torch
from torch import Tensor

from potstill.losses import consistency_loss, cross_entropy
from potstill.training.loop import Forward, Objective
from potstill.types import Batch


def fixmatch_objective(*, threshold: float = 0.95, unlabeled_weight: float = 1.0) -> Objective:
    """Labeled cross-entropy plus, where the weak view is answered with confidence, that answer for the strong view.

    `l_s + lambda_u * l_u` (equations 3 and 4): the pseudo-label is the arg max of the weak view's probabilities,
    used where they reach `threshold`, without a gradient. All views go through one train-mode forward pass, so that
    batch statistics mean the same as for every other method.

    Args:
        threshold: tau, in [0, 1]; 0.95 in the paper.
        unlabeled_weight: lambda_u; 1 in the paper.
    """

    def objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
        if batch.pool_weak is None or batch.pool_strong is None:
            raise ValueError("FixMatch needs a batch with weak and strong views of pool images")
        labeled, weak = len(batch.labels), len(batch.pool_weak)
        logits = student(torch.cat([batch.labeled_images, batch.pool_weak, batch.pool_strong])).logits
        supervised = cross_entropy(logits[:labeled], batch.labels)
        unlabeled, used = consistency_loss(
            logits[labeled : labeled + weak].detach(), logits[labeled + weak :], threshold=threshold
        )
        loss = supervised + unlabeled_weight * unlabeled
        return {"loss": loss, "supervised": supervised, "unlabeled": unlabeled, "confident_share": used}

    return objective
