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
    threshold: float = 0.0,
    handover: float = 0.0,
    soft: bool = True,
    source_weight: float = 0.0,
    weak_weight: float = 0.0,
    standardise: bool = False,
) -> Objective:
    """Labeled cross-entropy, and the stack's answer as the label of a strong view of each pool image.

    With t from 0 to 1 over the run, p the student's probabilities of the weak view (without a gradient), q those of the
    stack of the sources (`stacking.stack_sources`) and h = `handover`, the pseudo-label of a pool image is
    `f = softmax(h t log p + (1 - h t) log q)`: with h = 0 the stack's answer alone, with h = 1 a geometric mean in
    which the stack leads early and the student late. Where `max f` reaches the threshold the strong view learns it, and
    with `weak_weight` the weak view too. With `source_weight` the student also learns each source's answers over the
    source's own classes, as in source-space distillation, less and less:

    `CE_L + mean_U 1[max f >= threshold] (CE(f, strong) + weak_weight CE(f, weak))
    + source_weight (1 - t) sum_s a_s D_s`

    Args:
        weights: a_s of the student's sources in their order, on the simplex.
        temperatures: T_s > 0; the answers of a batch are softened at them already.
        threshold: in [0, 1].
        handover: h in [0, 1].
        soft: learn f as it is, instead of its arg max.
        source_weight: of the sources' answers at the start; 0 leaves them out.
        weak_weight: of the weak view's loss.
        standardise: compare z-scores of the sources' logits; the answers of a batch are z-scores already then.
    """
    shares = torch.tensor(weights, dtype=torch.float32)
    needs_weak = bool(handover or source_weight or weak_weight)

    def objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
        if batch.pool_strong is None or batch.target_probs is None or (needs_weak and batch.pool_weak is None):
            raise ValueError("fusion needs a batch with strong views, the stack's probabilities and perhaps weak views")
        if source_weight and len(batch.answers) != len(weights):
            raise ValueError(f"fusion needs {len(weights)} sources' answers, got {len(batch.answers)}")
        labeled, pool = len(batch.labels), len(batch.pool_strong)
        views = [batch.labeled_images, batch.pool_strong]
        if batch.pool_weak is not None:
            views.append(batch.pool_weak)  # sources answered for plain images: the weak views are next to them
        outputs = student(torch.cat(views), labeled + pool)
        logits = outputs.logits.float()
        strong, weak = logits[labeled : labeled + pool], logits[labeled + pool :]
        targets = batch.target_probs.float()
        if handover:
            targets = fuse(weak.detach(), targets, progress=handover * batch.progress)
        confidence, pseudo_labels = targets.max(dim=1)
        confident = (confidence >= threshold).float()
        learnt = targets if soft else torch.nn.functional.one_hot(pseudo_labels, targets.shape[1]).float()
        losses = _losses(strong, learnt)
        if weak_weight:
            losses = losses + weak_weight * _losses(weak, learnt)
        supervised = cross_entropy(logits[:labeled], batch.labels)
        fused = (confident * losses).mean()
        loss = supervised + fused
        terms = {"supervised": supervised, "fused": fused, "confident_share": confident.mean()}
        if source_weight:
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


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
