"""Fusion: pseudo-labels over the target's classes that pass from the sources to the student while it learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from potstill.distillation.objective import source_space_loss
from potstill.losses import cross_entropy
from potstill.training.loop import Forward, Objective
from potstill.types import Batch

LEAST_PROBABILITY = 1e-6
"""Of a class in the stack: none is excluded for good."""


def fused_objective(
    weights: Sequence[float],
    *,
    temperatures: Sequence[float],
    threshold: float = 0.8,
    source_weight: float = 0.5,
    weak_weight: float = 0.5,
    standardise: bool = False,
) -> Objective:
    """Labeled cross-entropy, the fused pseudo-label for two views of each pool image, and the sources' own answers.

    With t from 0 to 1 over the run, p the student's probabilities of the weak view (without a gradient) and q those of
    the stack of the sources (`stacking.stack_sources`), the pseudo-label of a pool image is the arg max of
    `f = softmax(t log p + (1 - t) log q)`: a geometric mean in which the stack leads early and the student late. Where
    `max f` reaches the threshold it is the label of the strong view, and with `weak_weight` of the weak view. While
    the stack leads, the student also learns each source's answers over the source's own classes, as in source-space
    distillation:

    `CE_L + mean_U 1[max f >= threshold] (CE(strong) + weak_weight CE(weak)) + source_weight (1 - t) sum_s a_s D_s`

    Args:
        weights: a_s of the student's sources in their order, on the simplex.
        temperatures: T_s > 0; the answers of a batch are softened at them already.
        threshold: in [0, 1].
        source_weight: of the sources' answers at the start; 0 leaves them out.
        weak_weight: of the weak view's loss.
        standardise: compare z-scores of the sources' logits; the answers of a batch are z-scores already then.
    """
    shares = torch.tensor(weights, dtype=torch.float32)

    def objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
        if batch.pool_weak is None or batch.pool_strong is None or batch.target_probs is None:
            raise ValueError("fusion needs a batch with weak and strong views and the stack's probabilities")
        if len(batch.answers) != len(weights):
            raise ValueError(f"fusion needs {len(weights)} sources' answers, got {len(batch.answers)}")
        labeled, pool = len(batch.labels), len(batch.pool_weak)
        images = torch.cat([batch.labeled_images, batch.pool_strong, batch.pool_weak])
        outputs = student(images, labeled + pool)  # sources answered for plain images: the weak views are next to them
        logits = outputs.logits.float()
        strong, weak = logits[labeled : labeled + pool], logits[labeled + pool :]
        supervised = cross_entropy(logits[:labeled], batch.labels)
        confidence, pseudo_labels = fuse(weak.detach(), batch.target_probs, progress=batch.progress).max(dim=1)
        confident = (confidence >= threshold).float()
        losses = _losses(strong, pseudo_labels) + weak_weight * _losses(weak, pseudo_labels)
        fused = (confident * losses).mean()
        loss = supervised + fused
        terms = {"supervised": supervised, "fused": fused, "confident_share": confident.mean()}
        if source_weight > 0:
            terms["distilled"] = source_space_loss(
                outputs.source_logits, batch.answers, shares, temperatures=temperatures, standardise=standardise
            )
            loss = loss + source_weight * (1 - batch.progress) * terms["distilled"]
        return {"loss": loss, **terms}

    return objective


def fuse(logits: Tensor, target_probs: Tensor, *, progress: float) -> Tensor:
    """Probabilities `(M, C)`: the geometric mean of the student's and the stack's, weighted by progress in [0, 1].

    >>> fuse(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.5, 0.5]]), progress=0.5)  # softmax(1, 0)
    tensor([[0.7311, 0.2689]])
    """
    student = torch.log_softmax(logits.float(), dim=1)
    stack = target_probs.clamp(min=LEAST_PROBABILITY).log()
    return torch.softmax(progress * student + (1 - progress) * stack, dim=1)


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
