"""SoftMatch (Chen et al., ICLR 2023, arXiv 2301.10921): FixMatch without a fixed threshold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from potstill.losses import cross_entropy
from potstill.training.loop import Forward
from potstill.training.processes import mean_over_processes
from potstill.types import Batch


class SoftMatch(nn.Module):
    """Labeled cross-entropy plus every pseudo-label, weighted by how confident it is beside the others so far.

    `l_s + lambda_u * mean_B w(q') CE(argmax q, softmax(strong))` with q the probabilities of the weak view. The weight
    w is 1 where the confidence `max q'` is above its running mean mu, else
    `exp(-(max q' - mu)^2 / (2 s^2 / n^2))` (section 3.1), with q' = q rescaled so that all classes are as frequent as
    each other (uniform alignment, section 3.2); mu, s^2 and the frequencies of the classes are running averages.
    Weak views carry no gradient; all views go through one train-mode forward pass.

    Args:
        num_classes: C.
        momentum: of the running averages, in [0, 1). The paper's 0.999 is made for a million steps; of a run of some
            hundred it would remember hardly more than its start.
        unlabeled_weight: lambda_u; 1 in the paper.
        sharpness: n, how much narrower the weight falls than the spread of the confidence; 2 in the authors' code.
    """

    mean: Tensor
    variance: Tensor
    frequencies: Tensor

    def __init__(
        self, num_classes: int, *, momentum: float = 0.99, unlabeled_weight: float = 1.0, sharpness: float = 2.0
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"expected a momentum in [0, 1), got {momentum}")
        self._momentum, self._unlabeled_weight, self._sharpness = momentum, unlabeled_weight, sharpness
        self.register_buffer("mean", torch.tensor(1 / num_classes))
        self.register_buffer("variance", torch.tensor(1.0))
        self.register_buffer("frequencies", torch.full((num_classes,), 1 / num_classes))

    def forward(self, student: Forward, batch: Batch) -> Mapping[str, Tensor]:
        """The terms of a batch with weak and strong views of its pool images."""
        if batch.pool_weak is None or batch.pool_strong is None:
            raise ValueError("SoftMatch needs a batch with weak and strong views of pool images")
        labeled, weak = len(batch.labels), len(batch.pool_weak)
        logits = student(torch.cat([batch.labeled_images, batch.pool_weak, batch.pool_strong])).logits
        supervised = cross_entropy(logits[:labeled], batch.labels)
        probs = logits[labeled : labeled + weak].detach().float().softmax(dim=1)
        self._remember(probs)
        weights = self._weights(probs)
        losses = functional.cross_entropy(logits[labeled + weak :].float(), probs.argmax(dim=1), reduction="none")
        unlabeled = (weights * losses).mean()
        loss = supervised + self._unlabeled_weight * unlabeled
        return {"loss": loss, "supervised": supervised, "unlabeled": unlabeled, "mean_weight": weights.mean()}

    def _remember(self, probs: Tensor) -> None:
        """Take the batch into the running averages."""
        confidence = probs.amax(dim=1)
        rest = 1 - self._momentum
        # In place: what a checkpoint holds are these very tensors.
        self.mean.lerp_(mean_over_processes(confidence.mean()), rest)
        self.variance.lerp_(mean_over_processes(confidence.var(correction=min(1, len(probs) - 1))), rest)
        self.frequencies.lerp_(mean_over_processes(probs.mean(dim=0)), rest)

    def _weights(self, probs: Tensor) -> Tensor:
        aligned = probs / self.frequencies
        confidence = (aligned / aligned.sum(dim=1, keepdim=True)).amax(dim=1)
        below = (confidence - self.mean).clamp(max=0)
        return torch.exp(-(below**2) / (2 * self.variance / self._sharpness**2))
