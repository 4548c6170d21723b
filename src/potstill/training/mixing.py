"""Mixup: train on weighted means of two images and of what is known about them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from potstill.training.loop import Forward, Objective
from potstill.training.student import StudentOutputs
from potstill.types import Batch, SoftTargets, TopKTargets


def mixed(objective: Objective, *, alpha: float) -> Objective:
    """The objective on mixed images: `share * x + (1 - share) * x[partner]`, share ~ Beta(alpha, alpha) a batch.

    Losses are linear in their targets, so the loss of a mixed image is share times that for its own target plus
    1 - share times that for its partner's (Zhang et al., arXiv 1710.09412, section 2), from one forward pass. Labeled
    images are mixed with labeled ones, pool images with pool ones. A source was not asked about the mixed image; the
    mean of its answers stands in for that.

    Args:
        objective: one whose terms are linear in labels and answers, so not FixMatch's.
        alpha: > 0; small values mix little, 1 is uniform. Numbers come from torch's global generator on the CPU.

    Raises:
        ValueError: alpha is not positive; or, of the objective, a batch with strong views: what compares two views of
            an image is not linear in a target.
    """
    if not alpha > 0:
        raise ValueError(f"expected alpha > 0, got {alpha}")

    def mixed_objective(student: Forward, batch: Batch) -> dict[str, Tensor]:
        if batch.pool_strong is not None:
            raise ValueError("expected a batch without strong views: an objective of two views cannot be mixed")
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        labeled = torch.randperm(len(batch.labels)).to(batch.labels.device)
        pool = None if batch.pool_weak is None else torch.randperm(len(batch.pool_weak)).to(batch.pool_weak.device)
        blended = replace(
            batch,
            labeled_images=torch.lerp(batch.labeled_images[labeled], batch.labeled_images, share),
            pool_weak=None if batch.pool_weak is None else torch.lerp(batch.pool_weak[pool], batch.pool_weak, share),
        )
        partners = replace(
            blended,
            labels=batch.labels[labeled],
            answers=tuple(_taken(targets, pool) for targets in batch.answers) if pool is not None else (),
        )
        once = _Once(student)
        own, other = objective(once, blended), objective(once, partners)
        return {name: share * own[name] + (1 - share) * other[name] for name in own}

    return mixed_objective


class _Once:
    """A student that is run once: both targets are compared with the same outputs."""

    def __init__(self, student: Forward) -> None:
        self._student = student
        self._outputs: StudentOutputs | None = None

    def __call__(self, images: Tensor, labeled: int | None = None, /) -> StudentOutputs:
        if self._outputs is None:
            self._outputs = self._student(images, labeled)
        return self._outputs


def _taken(targets: SoftTargets, rows: Tensor) -> SoftTargets:
    confidence = None if targets.confidence is None else targets.confidence[rows]
    if isinstance(targets, TopKTargets):
        return replace(targets, indices=targets.indices[rows], probs=targets.probs[rows], confidence=confidence)
    return replace(targets, probs=targets.probs[rows], confidence=confidence)
