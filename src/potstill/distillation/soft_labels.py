"""Soft labels: the student learns the target's classes of pool images from a teacher that answered once, beforehand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy as soft_cross_entropy

from potstill.losses import cross_entropy
from potstill.training.loop import Forward, Objective
from potstill.types import Batch


def soft_label_objective() -> Objective:
    """Labeled cross-entropy, and the teacher's probabilities as the label of a strong view of each pool image.

    `CE_L(h(phi(x)), y) + mean_U CE(q(x), h(phi(strong(x))))`, where q, the target probabilities of a batch, are those
    of the stack of the sources (`stacking.stack_sources`) or of an earlier student. Labeled images are among those of
    the pool, with their labels. q is learnt as it is, without a threshold: a calibrated teacher says itself where it
    does not know. That it saw the plain image and the student a distorted one makes the student agree over distortions
    as FixMatch does (Sohn et al., NeurIPS 2020, arXiv 2001.07685), but from the first step on, by labels that do not
    come from its own mistakes.
    """

    def objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
        if batch.pool_strong is None or batch.target_probs is None:
            raise ValueError("soft labels need a batch with strong views and the teacher's probabilities")
        labeled = len(batch.labels)
        logits = student(torch.cat([batch.labeled_images, batch.pool_strong])).logits.float()
        supervised = cross_entropy(logits[:labeled], batch.labels)
        unlabeled = soft_cross_entropy(logits[labeled:], batch.target_probs.float())
        return {"loss": supervised + unlabeled, "supervised": supervised, "unlabeled": unlabeled}

    return objective
