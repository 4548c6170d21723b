"""Mixup: train on weighted means of two images and of what is known about them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from potstill.training.loop import Forward, Objective
from potstill.training.student import StudentOutputs
from potstill.types import Batch


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
        device = batch.labels.device
        others = torch.randperm(len(batch.labels)).to(device, non_blocking=True)
        count = 0 if batch.pool_weak is None else len(batch.pool_weak)
        pool_others = torch.randperm(count).to(device, non_blocking=True)
        blended = replace(
            batch,
            labeled_images=torch.lerp(batch.labeled_images[others], batch.labeled_images, share),
            pool_weak=None
            if batch.pool_weak is None
            else torch.lerp(batch.pool_weak[pool_others], batch.pool_weak, share),
        )
        partners = replace(
            blended,
            labels=batch.labels[others],
            answers=tuple(targets.map(lambda values: values[pool_others]) for targets in batch.answers),
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
