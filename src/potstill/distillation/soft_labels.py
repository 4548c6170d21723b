"""Soft labels: the student learns the target's classes of pool images from a teacher that answered once, beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy as soft_cross_entropy

from potstill.distillation.objective import source_space_loss
from potstill.losses import cross_entropy
from potstill.training.loop import Forward, Objective
from potstill.types import Batch


def soft_label_objective(
    weights: Sequence[float] = (),
    *,
    temperatures: Sequence[float] = (),
    source_weight: float = 0.0,
    standardise: bool = False,
) -> Objective:
    """Labeled cross-entropy, and the teacher's probabilities as the label of a strong view of each pool image.

    `CE_L(h(phi(x)), y) + mean_U CE(q(x), h(phi(v))) + source_weight * sum_s a_s D_s(v)` with v a strong view of x. q,
    the target probabilities of a batch, are those of the stack of the sources (`stacking.stack_sources`) or of an
    earlier student. They are learnt as they are, without a threshold: a calibrated teacher says itself where it does
    not know. That it saw the plain image and the student a distorted one makes the student agree over distortions as
    FixMatch does (Sohn et al., NeurIPS 2020, arXiv 2001.07685), but from the first step on, by labels that do not come
    from its own mistakes. D_s is the source-space loss of `objective.source_space_objective`: what a source says over
    its own classes tells more about an image than the target's classes can hold.

    Args:
        weights: a_s of the student's sources in their order, on the simplex; none without source-space loss.
        temperatures: T_s > 0 of the same sources; the answers of a batch are softened at them already.
        source_weight: of the source-space loss; 0 leaves it out.
        standardise: compare z-scores of the sources' logits; the answers of a batch are z-scores already then.
    """
    shares = torch.tensor(weights, dtype=torch.float32)

    def objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
        if batch.pool_strong is None or batch.target_probs is None:
            raise ValueError("soft labels need a batch with strong views and the teacher's probabilities")
        labeled = len(batch.labels)
        outputs = student(torch.cat([batch.labeled_images, batch.pool_strong]), labeled)
        logits = outputs.logits.float()
        supervised = cross_entropy(logits[:labeled], batch.labels)
        unlabeled = soft_cross_entropy(logits[labeled:], batch.target_probs.float())
        loss = supervised + unlabeled
        terms = {"supervised": supervised, "unlabeled": unlabeled}
        if source_weight:
            terms["distilled"] = source_space_loss(
                outputs.source_logits, batch.answers, shares, temperatures=temperatures, standardise=standardise
            )
            loss = loss + source_weight * terms["distilled"]
        return {"loss": loss, **terms}

    return objective
